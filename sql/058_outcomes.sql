-- sql/058_outcomes.sql: metrics, and what came of units.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/054_exposure.sql
--
-- dbscore.create_metric(experiment, name, kind, ...)
--   kind        conversion: whether there is an outcome other than 0; mean: the sum of a unit's outcomes; count: how many
--               there are; ratio: the sum of values over the sum of denominators; quantile: of units' sums. A unit without an
--               outcome counts as 0, but in quantiles and where the outcome is the truth that a prediction is
--               compared with: log_loss, brier, auc of classifiers, rmse, mae of regressions
--   direction   higher or lower is better; by default lower for losses
--   role        goal or guardrail, which must not get worse by more than margin, a share of the control's mean
--   window      how long after its assignment a unit's outcomes count
--   source      a query of unit, value[, denominator], at, for dbscore.collect_outcomes
--   covariate   a query of unit, value: what was before the assignment, for CUPED
-- dbscore.drop_metric(experiment, name)
-- dbscore.record_outcome(experiment, unit, metric, value, at, denominator)   value is a number, or the class as a text
-- dbscore.collect_outcomes(experiment)   runs the metrics' queries, with the rights of the caller, and takes their rows for
--                                        what there was before
-- errors: ML001 no such experiment or metric; ML014 the unit was never exposed, or the value is none of the metric's

create or replace function dbscore.is_quality(kind text) returns boolean
language sql immutable parallel safe
return kind in ('log_loss', 'brier', 'auc', 'rmse', 'mae');

create or replace function dbscore.create_metric(
    experiment text, name text, kind text, direction text default null, role text default 'goal', margin double precision default null,
    "window" interval default null, quantile double precision default null, source text default null, covariate text default null
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_experiment constant dbscore.experiment := dbscore.experiment_in(experiment, '{draft,running,paused}', 'given a metric');
    control record;
    classes integer;
begin
    select d.* into control from dbscore.variant_details d where d.experiment_id = found_experiment.experiment_id and d.number = 1;
    classes := jsonb_array_length(nullif(control.signature -> 'classes', 'null'));
    if name is null or name !~ '^[a-z_][a-z0-9_]{0,47}$' then
        raise exception 'a metric cannot be called %', quote_nullable(name) using errcode = 'ML003', hint = 'Use lower-case letters, digits and underscores.';
    elsif exists (select from dbscore.metric m where m.experiment_id = found_experiment.experiment_id and m.name = create_metric.name) then
        raise exception 'experiment % has a metric % already', experiment, quote_literal(name)
        using errcode = 'ML003', hint = 'Choose another name, or drop it first: what was recorded for it goes with it.';
    elsif kind is null or kind not in ('conversion', 'mean', 'count', 'ratio', 'quantile') and not dbscore.is_quality(kind) then
        raise exception 'there is no kind of metric %', quote_nullable(kind)
        using errcode = 'ML014', hint = 'It is conversion, mean, count, ratio, quantile, log_loss, brier, auc, rmse or mae.';
    elsif direction is not null and direction not in ('higher', 'lower') then
        raise exception 'the direction is %', quote_literal(direction) using errcode = 'ML014', hint = 'Say which is better: higher or lower.';
    elsif role is null or role not in ('goal', 'guardrail') then
        raise exception 'the role is %', quote_nullable(role) using errcode = 'ML014', hint = 'It is goal or guardrail.';
    elsif (role = 'guardrail') <> (margin is not null) or margin < 0 or margin = 'NaN' then
        raise exception 'the margin of a % is %', role, coalesce(margin::text, 'NULL')
        using errcode = 'ML014', hint = 'A guardrail has one, 0 or more, a share of the control''s mean; a goal has none.';
    elsif (kind = 'quantile') <> (quantile is not null) or not (quantile > 0 and quantile < 1) then
        raise exception 'the quantile of a % is %', kind, coalesce(quantile::text, 'NULL')
        using errcode = 'ML014', hint = 'A metric of kind quantile has one, between 0 and 1; others have none.';
    elsif "window" <= interval '0' then
        raise exception 'the window is %', "window" using errcode = 'ML014', hint = 'It is how long after its assignment outcomes of a unit count.';
    elsif found_experiment.mode = 'shadow' and not dbscore.is_quality(kind) then
        raise exception 'metric % is of kind %, and experiment % in shadow mode', name, kind, experiment
        using errcode = 'ML014', hint = 'What comes of a unit tells the served version only. Compare predictions with the truth: log_loss, brier, auc, rmse, mae.';
    elsif kind in ('log_loss', 'brier') and (classes is null or not control.has_probabilities) or kind = 'auc' and (classes is distinct from 2 or not control.has_probabilities) then
        raise exception 'metric % is of kind %, and the versions predict no probabilities%', name, kind, case when kind = 'auc' then ' of two classes' else '' end
        using errcode = 'ML014', hint = 'Classifiers that give probabilities have log_loss and brier; those of two classes have auc.';
    elsif kind in ('rmse', 'mae') and (classes is not null or control.type in ('text', 'boolean')) then
        raise exception 'metric % is of kind %, and the versions predict no number', name, kind
        using errcode = 'ML014', hint = 'Regressions have rmse and mae; classifiers log_loss, brier and auc.';
    end if;
    insert into dbscore.metric (experiment_id, name, kind, direction, role, margin, "window", quantile, source, covariate)
    values (found_experiment.experiment_id, create_metric.name, create_metric.kind,
            coalesce(create_metric.direction, case when kind in ('log_loss', 'brier', 'rmse', 'mae') then 'lower' else 'higher' end),
            create_metric.role, create_metric.margin, create_metric."window", create_metric.quantile, create_metric.source, create_metric.covariate);
    perform dbscore.note_experiment(experiment, 'metric', jsonb_build_object('name', name, 'kind', kind));
end
$function$;

create or replace function dbscore.drop_metric(experiment text, name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_metric constant dbscore.metric := dbscore.metric_named((dbscore.experiment_named(experiment)).experiment_id, name);
begin
    delete from dbscore.outcome o where o.metric_id = found_metric.metric_id;
    delete from dbscore.metric m where m.metric_id = found_metric.metric_id;
    perform dbscore.note_experiment(experiment, 'drop metric', to_jsonb(name));
end
$function$;

create or replace function dbscore.metric_named(experiment_id integer, name text) returns dbscore.metric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_metric dbscore.metric;
begin
    select * into found_metric from dbscore.metric m where m.experiment_id = metric_named.experiment_id and m.name = metric_named.name;
    if found_metric.metric_id is null then
        raise exception 'the experiment has no metric %', quote_nullable(name)
        using errcode = 'ML001', hint = coalesce(
            'Its metrics: ' || (select string_agg(m.name, ', ' order by m.name) from dbscore.metric m where m.experiment_id = metric_named.experiment_id) || '.',
            'It has none yet: see dbscore.create_metric().');
    end if;
    return found_metric;
end
$function$;

-- how far a prediction is from the truth, and the number that was compared; for auc the truth itself, as 0 or 1
create or replace function dbscore.loss(
    kind text, classes jsonb, truth text, prediction double precision, probabilities double precision[], out loss double precision, out predicted double precision
)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    place integer;
    number double precision;
begin
    if kind in ('rmse', 'mae') then
        begin
            number := truth::float8;
        exception when data_exception then
            number := null;
        end;
        if number is null or number in ('NaN', 'Infinity', '-Infinity') then
            raise exception 'the truth is %', quote_nullable(truth) using errcode = 'ML014', hint = 'It is a finite number.';
        end if;
        predicted := prediction;
        loss := case kind when 'rmse' then (prediction - number) * (prediction - number) else abs(prediction - number) end;
        return;
    end if;
    select i into place from jsonb_array_elements_text(classes) with ordinality as listed (c, i)
    where c = truth or (c ~ '^-?[0-9.]+$' and truth ~ '^-?[0-9.]+$' and c::numeric = truth::numeric)
        or (c in ('true', 'false') and truth in ('1', '0', 't', 'f') and c = case when truth in ('1', 't') then 'true' else 'false' end);
    if place is null then
        raise exception 'the truth % is no class of the versions', quote_nullable(truth)
        using errcode = 'ML014', hint = format('Their classes: %s.', (select string_agg(c, ', ') from jsonb_array_elements_text(classes) c));
    end if;
    if kind = 'log_loss' then
        predicted := probabilities[place];
        -- as scikit-learn has it: no probability is 0 or 1
        loss := -ln(least(greatest(predicted, 2.220446049250313e-16), 1 - 2.220446049250313e-16));
    elsif jsonb_array_length(classes) = 2 then
        predicted := probabilities[2];
        loss := case kind when 'auc' then place - 1 else (predicted - (place - 1)) * (predicted - (place - 1)) end;
    else
        predicted := probabilities[place];
        loss := (select sum((p - (i = place)::integer) * (p - (i = place)::integer)) from unnest(probabilities) with ordinality as listed (p, i));
    end if;
end
$function$;

-- the truth of a unit, beside the last prediction before it: of each version in shadow mode
create or replace function dbscore.note_truth(experiment dbscore.experiment, metric dbscore.metric, unit text, truth text, at timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    recorded bigint;
begin
    insert into dbscore.outcome (metric_id, unit, variant, value, label, predicted, occurred_at)
    select metric.metric_id, note_truth.unit, case experiment.mode when 'shadow' then p.variant end, compared.loss, truth, compared.predicted, at
    from (
        select distinct on (p.variant) p.* from dbscore.prediction p
        where p.experiment_id = experiment.experiment_id and p.unit = note_truth.unit and p.predicted_at <= at and (experiment.mode = 'shadow' or p.is_served)
        order by p.variant, p.predicted_at desc
    ) p
    join dbscore.version w using (version_id)
    cross join lateral dbscore.loss(metric.kind, w.signature -> 'classes', truth, p.prediction, p.probabilities) compared
    where compared.loss is not null;
    get diagnostics recorded = row_count;
    return recorded;
end
$function$;

create or replace function dbscore.note_outcome(
    experiment_id integer, unit text, metric text, value double precision, at timestamptz, denominator double precision, label text
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_experiment dbscore.experiment;
    found_metric constant dbscore.metric := dbscore.metric_named(experiment_id, metric);
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = note_outcome.experiment_id;
    perform dbscore.refuse_unit(found_experiment.name, unit);
    if not exists (select from dbscore.assignment a where a.experiment_id = note_outcome.experiment_id and a.unit = note_outcome.unit) then
        raise exception 'unit % was never exposed to experiment %', quote_literal(unit), found_experiment.name
        using errcode = 'ML014', hint = 'An outcome belongs to a unit that the experiment has predicted for.';
    elsif at is null or not isfinite(at) then
        raise exception 'the time of the outcome is %', coalesce(at::text, 'NULL') using errcode = 'ML014', hint = 'Say when it came.';
    end if;
    if dbscore.is_quality(found_metric.kind) then
        if label is null and value is null then
            raise exception 'the truth is NULL' using errcode = 'ML014', hint = 'Record it when it is known.';
        elsif dbscore.note_truth(found_experiment, found_metric, unit, coalesce(label, value::text), at) = 0 then
            raise exception 'unit % has no prediction before %', quote_literal(unit), at
            using errcode = 'ML014', hint = 'The truth is compared with the last prediction before it.';
        end if;
        return;
    end if;
    begin
        value := coalesce(value, label::float8);
    exception when data_exception then
        value := null;
    end;
    if value is null or value in ('NaN', 'Infinity', '-Infinity') then
        raise exception 'the value of metric % is %', metric, coalesce(value::text, quote_nullable(label)) using errcode = 'ML014', hint = 'It is a finite number.';
    elsif (found_metric.kind = 'ratio') <> (denominator is not null) or denominator in ('NaN', 'Infinity', '-Infinity') then
        raise exception 'the denominator of metric % is %', metric, coalesce(denominator::text, 'NULL')
        using errcode = 'ML014', hint = 'A ratio has one, a finite number; other metrics have none.';
    end if;
    insert into dbscore.outcome (metric_id, unit, value, denominator, occurred_at) values (found_metric.metric_id, unit, value, denominator, at);
end
$function$;

create or replace function dbscore.outcome_function(experiment text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if experiment is null or to_regprocedure(format('experiments.%I(text, text, double precision, timestamptz, double precision, text)', experiment || '_outcome')) is null then
        raise exception 'there is no experiment %', quote_nullable(experiment)
        using errcode = 'ML001', hint = 'select experiment from dbscore.experiments shows those there are.';
    end if;
    return format('select experiments.%I($1, $2, $3, $4, $5, $6)', experiment || '_outcome');
end
$function$;

create or replace function dbscore.record_outcome(
    experiment text, unit text, metric text, value double precision, at timestamptz default clock_timestamp(), denominator double precision default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    execute dbscore.outcome_function(experiment) using unit, metric, value, at, denominator, null::text;
end
$function$;

create or replace function dbscore.record_outcome(experiment text, unit text, metric text, value text, at timestamptz default clock_timestamp(), denominator double precision default null)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    execute dbscore.outcome_function(experiment) using unit, metric, null::float8, at, denominator, value;
end
$function$;

-- it has no search_path of its own: the queries' names are looked up in the caller's
create or replace function dbscore.collect_outcomes(experiment text) returns bigint
language plpgsql volatile
as $function$
declare
    found_experiment constant dbscore.experiment := dbscore.experiment_named(experiment);
    one dbscore.metric;
    has_denominator boolean;
    counted bigint;
    collected bigint := 0;
begin
    -- one at a time: each takes away what there was
    perform from dbscore.experiment e where e.experiment_id operator(pg_catalog.=) found_experiment.experiment_id for update;
    for one in select m.* from dbscore.metric m where m.experiment_id operator(pg_catalog.=) found_experiment.experiment_id and m.source is not null
    loop
        if pg_catalog.to_regclass('pg_temp.dbscore_outcomes') is not null then
            drop table pg_temp.dbscore_outcomes;
        end if;
        execute pg_catalog.format(E'create temporary table dbscore_outcomes as select (unit)::pg_catalog.text as unit, (value)::pg_catalog.text as value, (at)::timestamptz as at, %s as denominator from (%s\n) as asked',
            case one.kind when 'ratio' then '(denominator)::double precision' else 'null::double precision' end,
            pg_catalog.rtrim(one.source, E'; \n\t\r'));
        collected := collected operator(pg_catalog.+) dbscore.take_outcomes(found_experiment, one);
        drop table pg_temp.dbscore_outcomes;
    end loop;
    return collected;
end
$function$;

create or replace function dbscore.take_outcomes(experiment dbscore.experiment, metric dbscore.metric) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    taken bigint := 0;
    given record;
begin
    delete from dbscore.outcome o where o.metric_id = metric.metric_id;
    perform dbscore.count_anew(experiment.experiment_id);
    if dbscore.is_quality(metric.kind) then
        for given in select o.unit, o.value, o.at from pg_temp.dbscore_outcomes o join dbscore.assignment a on a.experiment_id = experiment.experiment_id and a.unit = o.unit
            where o.value is not null and o.at is not null
        loop
            taken := taken + dbscore.note_truth(experiment, metric, given.unit, given.value, given.at);
        end loop;
        return taken;
    end if;
    insert into dbscore.outcome (metric_id, unit, value, denominator, occurred_at)
    select metric.metric_id, o.unit, o.value::float8, o.denominator, o.at
    from pg_temp.dbscore_outcomes o join dbscore.assignment a on a.experiment_id = experiment.experiment_id and a.unit = o.unit
    where o.value is not null and o.at is not null and o.value::float8 not in ('NaN', 'Infinity', '-Infinity')
      and (metric.kind <> 'ratio' or o.denominator not in ('NaN', 'Infinity', '-Infinity'));
    get diagnostics taken = row_count;
    return taken;
end
$function$;

comment on function dbscore.is_quality(text) is 'Whether a metric compares predictions with the truth.';
comment on function dbscore.create_metric(text, text, text, text, text, double precision, interval, double precision, text, text) is
    'Gives an experiment a metric: select dbscore.create_metric(''tip_test'', ''tip_paid'', ''conversion'', "window" => ''7 days'').';
comment on function dbscore.drop_metric(text, text) is 'Drops a metric with its outcomes.';
comment on function dbscore.metric_named(integer, text) is 'A metric''s row.';
comment on function dbscore.loss(text, jsonb, text, double precision, double precision[]) is 'How far a prediction is from the truth.';
comment on function dbscore.note_truth(dbscore.experiment, dbscore.metric, text, text, timestamptz) is 'Records the truth of a unit beside the last prediction before it.';
comment on function dbscore.note_outcome(integer, text, text, double precision, timestamptz, double precision, text) is 'Records what came of a unit.';
comment on function dbscore.outcome_function(text) is 'The statement that records an outcome.';
comment on function dbscore.record_outcome(text, text, text, double precision, timestamptz, double precision) is
    'Records what came of a unit: select dbscore.record_outcome(''tip_test'', ''42'', ''revenue'', 12.5).';
comment on function dbscore.record_outcome(text, text, text, text, timestamptz, double precision) is 'Records the class that a unit turned out to be of.';
comment on function dbscore.collect_outcomes(text) is 'Runs the queries of an experiment''s metrics, and takes their rows for what there was before.';
comment on function dbscore.take_outcomes(dbscore.experiment, dbscore.metric) is 'Takes the rows of a metric''s query for its outcomes.';
