-- sql/064_charts.sql: what the page of an experiment's report draws, counted in the database: for members of the owner.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/058_outcomes.sql
--
-- dbscore.score_distribution(experiment, bins)   how often each version predicted what, for units that count
--   variant          in shadow mode each version that predicted, else the one that was served
--   label            the class, of classifiers without probabilities or of more than two classes; NULL of numbers
--   lower, upper     the bin: of two classes the second one's probability, in bins of the same width from 0 to 1; of regressions
--                    between the 0.5 % and the 99.5 % quantile of all variants together, what lies beyond is in the outer bins
--   predictions      how many; a prediction that is NULL or not finite is in none
-- dbscore.calibration(experiment, metric, bins)   predictions beside what came true, of outcomes that count: the metric compares
--                                                 predictions of two classes, or of numbers, with the truth; of others no rows
--   bin, n           from 1, ordered by the prediction, each with about as many outcomes
--   predicted        the mean prediction: of two classes of the second one's probability
--   observed         the mean truth: of two classes the share of the second one
--   observed_deviation  the standard deviation of the truth
-- errors: ML001 no such experiment or metric; ML014 bins are not between 1 and 1000

create or replace function dbscore.refuse_bins(bins integer) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if bins is null or bins not between 1 and 1000 then
        raise exception 'the number of bins is %', coalesce(bins::text, 'NULL') using errcode = 'ML014', hint = 'It is between 1 and 1000.';
    end if;
end
$function$;

create or replace function dbscore.score_distribution(experiment text, bins integer default 40)
returns table (variant text, label text, lower double precision, upper double precision, predictions bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    e constant dbscore.experiment := dbscore.experiment_named(experiment);
    control record;
    of_two boolean;
    least_score double precision := 0;
    greatest_score double precision := 1;
begin
    perform dbscore.refuse_bins(bins);
    select d.* into control from dbscore.variant_details d where d.experiment_id = e.experiment_id and d.number = 1;
    of_two := control.has_probabilities and jsonb_array_length(nullif(control.signature -> 'classes', 'null')) = 2;
    if not of_two and nullif(control.signature -> 'classes', 'null') is not null then
        return query
        select v.name, coalesce(p.label, case control.type when 'boolean' then p.prediction::integer::boolean::text else p.prediction::text end) as label,
            null::float8, null::float8, count(*)
        from dbscore.prediction p join dbscore.variant v on v.experiment_id = p.experiment_id and v.number = p.variant
        where p.experiment_id = e.experiment_id and (e.mode = 'shadow' or p.is_served) and coalesce(p.label, p.prediction::text) is not null
          and not exists (select from dbscore.assignment a where a.experiment_id = e.experiment_id and a.unit = p.unit and a.left_out_xact is not null)
        group by v.number, v.name, 2
        order by v.number, 2;
        return;
    end if;
    if not of_two then
        select r.range[1], r.range[2] into least_score, greatest_score
        from (
            select percentile_disc(array[0.005, 0.995]) within group (order by p.prediction) as range
            from dbscore.prediction p
            where p.experiment_id = e.experiment_id and (e.mode = 'shadow' or p.is_served) and p.variant > 0
              and p.prediction > '-Infinity' and p.prediction < 'Infinity'
              and not exists (select from dbscore.assignment a where a.experiment_id = e.experiment_id and a.unit = p.unit and a.left_out_xact is not null)
        ) r;
        if greatest_score = least_score then
            -- a single number: a bin around it
            least_score := least_score - 0.5;
            greatest_score := greatest_score + 0.5;
        end if;
    end if;
    return query
    select v.name, null::text, least_score + (greatest_score - least_score) * (s.bin - 1) / bins, least_score + (greatest_score - least_score) * s.bin / bins, s.predictions
    from (
        select x.variant, least(greatest(width_bucket(x.score, least_score, greatest_score, bins), 1), bins) as bin, count(*) as predictions
        from (
            select p.variant, case when of_two then p.probabilities[2] else p.prediction end as score
            from dbscore.prediction p
            where p.experiment_id = e.experiment_id and (e.mode = 'shadow' or p.is_served) and p.variant > 0
              and not exists (select from dbscore.assignment a where a.experiment_id = e.experiment_id and a.unit = p.unit and a.left_out_xact is not null)
        ) x
        where x.score > '-Infinity' and x.score < 'Infinity'
        group by x.variant, 2
    ) s
    join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = s.variant
    order by v.number, s.bin;
end
$function$;

create or replace function dbscore.calibration(experiment text, metric text, bins integer default 10)
returns table (variant text, bin integer, n bigint, predicted double precision, observed double precision, observed_deviation double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- as of dbscore.unit_values()
set enable_nestloop = off
as $function$
#variable_conflict use_column
declare
    e constant dbscore.experiment := dbscore.experiment_named(experiment);
    m constant dbscore.metric := dbscore.metric_named(e.experiment_id, metric);
    classes constant jsonb := (select nullif(d.signature -> 'classes', 'null') from dbscore.variant_details d where d.experiment_id = e.experiment_id and d.number = 1);
begin
    perform dbscore.refuse_bins(bins);
    if not dbscore.is_quality(m.kind) or jsonb_array_length(classes) <> 2 then
        return;
    end if;
    return query
    with truths as (
        -- once for each class, not for each unit; of regressions the label is the number
        select l.label, case when classes is null then l.label::float8 else (dbscore.loss('auc', classes, l.label, null, '{0.5,0.5}')).loss end as truth
        from (select o.label from dbscore.outcome o where o.metric_id = m.metric_id and o.label is not null group by o.label) l
    ), outcomes as (
        select coalesce(o.variant, a.variant) as variant, t.truth,
            -- log-loss has kept the probability of the class that came true
            case when m.kind = 'log_loss' and t.truth = 0 then 1 - o.predicted else o.predicted end as predicted
        from dbscore.outcome o
        join dbscore.assignment a on a.experiment_id = e.experiment_id and a.unit = o.unit
        join truths t on t.label = o.label
        where o.metric_id = m.metric_id and a.variant > 0 and a.left_out_xact is null
          and o.occurred_at >= a.assigned_at and (m."window" is null or o.occurred_at < a.assigned_at + m."window")
    ), binned as (
        select o.*, ntile(bins) over (partition by o.variant order by o.predicted) as bin from outcomes o
    )
    select v.name, b.bin, count(*), avg(b.predicted), avg(b.truth), coalesce(stddev_samp(b.truth), 0)
    from binned b join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = b.variant
    group by v.number, v.name, b.bin
    order by v.number, b.bin;
end
$function$;

comment on function dbscore.refuse_bins(integer) is 'Raises an error where there are no bins, or too many.';
comment on function dbscore.score_distribution(text, integer) is 'How often each version predicted what: select * from dbscore.score_distribution(''tip_test'').';
comment on function dbscore.calibration(text, text, integer) is 'Predictions beside what came true: select * from dbscore.calibration(''tip_test'', ''loss'').';
