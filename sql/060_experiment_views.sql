-- sql/060_experiment_views.sql: experiments for analysts: what was assigned, predicted, came of it, and which variant is better.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0006, sql/056_publishing.sql, sql/058_outcomes.sql
--
-- A role sees the experiments that it may use; members of the owner see all.
--
-- dbscore.experiment_assignments   one row per unit
-- dbscore.experiment_predictions   one row per prediction; experiments.<name>_log has them typed
-- dbscore.experiment_outcomes      one row per outcome, and whether it counts
-- dbscore.experiment_daily         units and outcomes by the day, in UTC, on which the units were assigned
-- dbscore.experiment_summary       n, sum, sum of squares, mean, variance of each variant, by metric and allocation
-- dbscore.experiment_results       each variant beside the control: difference, lift, interval, p, and the sample-ratio check
--
-- Sums of days are kept in tables, and what was recorded since dbscore.refresh_experiment(name) last ran is added when a
-- view is read: the views are always true, and fast where it ran lately. Run it now and then, by pg_cron for example.
-- What is new is told by the numbers of transactions: all below the oldest one that still runs are complete.
--
-- dbscore.refresh_experiment(name), dbscore.refresh_experiments()
-- dbscore.upper_gamma(a, x)        the regularised upper incomplete gamma function, for a = 1/2, 1, 3/2 ...
-- dbscore.normal_p(z)              the probability of a standard normal number further from 0 than z
-- dbscore.chi_square_p(x, df)      the probability of a chi-square number above x
-- Source: the series and the continued fraction of https://dlmf.nist.gov/8.11.E4 and https://dlmf.nist.gov/8.9.E2

-- --- probabilities ---

create or replace function dbscore.upper_gamma(a double precision, x double precision) returns double precision
language plpgsql immutable strict parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    -- ln of gamma(a), from gamma(1/2) or gamma(1) upwards
    log_gamma double precision := case when a = trunc(a) then 0 else ln(pi()) / 2 end;
    step double precision := case when a = trunc(a) then 1 else 0.5 end;
    term double precision;
    total double precision;
    b double precision;
    c double precision;
    d double precision;
    change double precision;
begin
    if x <= 0 then
        return 1;
    elsif x > 700 + a then
        return 0;
    end if;
    while step < a
    loop
        log_gamma := log_gamma + ln(step);
        step := step + 1;
    end loop;
    if x < a + 1 then
        term := 1 / a;
        total := term;
        for i in 1 .. 500
        loop
            term := term * x / (a + i);
            total := total + term;
            exit when abs(term) < abs(total) * 1e-17;
        end loop;
        return 1 - total * exp(a * ln(x) - x - log_gamma);
    end if;
    b := x + 1 - a;
    c := 1e300;
    d := 1 / b;
    total := d;
    for i in 1 .. 500
    loop
        b := b + 2;
        d := 1 / (b - i * (i - a) * d);
        c := b - i * (i - a) / c;
        change := c * d;
        total := total * change;
        exit when abs(change - 1) < 1e-16;
    end loop;
    return total * exp(a * ln(x) - x - log_gamma);
end
$function$;

create or replace function dbscore.normal_p(z double precision) returns double precision
language sql immutable parallel safe
return dbscore.upper_gamma(0.5::float8, z * z / 2);

create or replace function dbscore.chi_square_p(x double precision, df bigint) returns double precision
language sql immutable parallel safe
return case when df > 0 then dbscore.upper_gamma(df / 2.0::float8, x / 2) end;

-- --- sums by day ---

-- what was recorded in transactions from one number on, to before another: units that came, less those left out since. The
-- rows of an experiment are taken by an index, which the planner would not see in a join: it would read the whole table
create or replace function dbscore.exposure_changes(since text, before text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($query$
    select e.experiment_id, c.allocation_id, c.variant, c.day, sum(c.is_there - c.was_there)::bigint as units
    from dbscore.experiment e cross join lateral (
        select n.allocation_id, n.variant, (n.assigned_at at time zone 'UTC')::date as day,
            (n.left_out_xact is null or not n.left_out_xact < %2$s)::integer as is_there, 0 as was_there
        from (select a.* from dbscore.assignment a where a.experiment_id = e.experiment_id and a.xact >= %1$s and a.xact < %2$s offset 0) n
        union all
        select a.allocation_id, a.variant, (a.assigned_at at time zone 'UTC')::date, 0, 1
        from dbscore.assignment a
        where a.experiment_id = e.experiment_id and a.left_out_xact >= %1$s and a.left_out_xact < %2$s and a.xact < %1$s
    ) c
    group by e.experiment_id, c.allocation_id, c.variant, c.day
$query$, since, before);

-- the same for what came of units: a unit with something new is taken out as it was, and put in as it is. With the fence
-- `offset 0` each unit's rows are looked up, which is right for few units; without it the planner decides
create or replace function dbscore.metric_changes(since text, before text, fence text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($query$
    with touched as (
        select m.metric_id, n.unit
        from dbscore.experiment e join dbscore.metric m using (experiment_id)
        cross join lateral (select o.unit from dbscore.outcome o where o.metric_id = m.metric_id and o.xact >= %1$s and o.xact < %2$s offset 0) n
        union
        select m.metric_id, a.unit
        from dbscore.experiment e join dbscore.metric m using (experiment_id) join dbscore.assignment a on a.experiment_id = e.experiment_id
        where a.left_out_xact >= %1$s and a.left_out_xact < %2$s
    ), outcomes as (
        select m.metric_id, m.kind, a.allocation_id, coalesce(o.variant, a.variant) as variant, (a.assigned_at at time zone 'UTC')::date as day, o.unit,
            a.xact < %1$s and (a.left_out_xact is null or not a.left_out_xact < %1$s) and o.xact < %1$s as was_there,
            a.xact < %2$s and (a.left_out_xact is null or not a.left_out_xact < %2$s) and o.xact < %2$s as is_there,
            o.value, o.denominator
        from touched t join dbscore.metric m using (metric_id) join dbscore.experiment e on e.experiment_id = m.experiment_id
        cross join lateral (select x.* from dbscore.outcome x where x.metric_id = t.metric_id and x.unit = t.unit %3$s) o
        cross join lateral (select x.* from dbscore.assignment x where x.experiment_id = m.experiment_id and x.unit = t.unit %3$s) a
        where a.variant > 0 and o.occurred_at >= a.assigned_at and (m."window" is null or o.occurred_at < a.assigned_at + m."window")
    ), units as (
        select o.metric_id, o.allocation_id, o.variant, o.day, sign.sign,
            case when o.kind = 'conversion' then (count(*) filter (where o.value <> 0) > 0)::integer
                when o.kind = 'count' then count(*)
                when o.kind in ('mean', 'ratio', 'quantile') then sum(o.value)
                else avg(o.value) end::float8 as value,
            coalesce(sum(o.denominator), 0) as denominator
        from outcomes o cross join (values (1), (-1)) as sign (sign)
        where case sign.sign when 1 then o.is_there else o.was_there end
        group by o.metric_id, o.kind, o.allocation_id, o.variant, o.day, o.unit, sign.sign
    )
    select u.metric_id, u.allocation_id, u.variant, u.day, sum(u.sign)::bigint as units, sum(u.sign * u.value) as total,
        sum(u.sign * u.value * u.value) as squares, sum(u.sign * u.denominator) as denominator_total,
        sum(u.sign * u.denominator * u.denominator) as denominator_squares, sum(u.sign * u.value * u.denominator) as products
    from units u
    group by u.metric_id, u.allocation_id, u.variant, u.day
$query$, since, before, fence);

do $block$
begin
    -- the greatest number there is: whatever the reader sees
    execute 'create or replace view dbscore.exposure_sums as'
        ' select s.experiment_id, s.allocation_id, s.variant, s.day, sum(s.units)::bigint as units'
        ' from (select d.experiment_id, d.allocation_id, d.variant, d.day, d.units from dbscore.exposure_day d union all select * from ('
        || dbscore.exposure_changes('coalesce(e.counted_xact, ''0''::xid8)', '''18446744073709551615''::xid8') || ') c) s group by s.experiment_id, s.allocation_id, s.variant, s.day';
    execute 'create or replace view dbscore.metric_sums as'
        ' select s.metric_id, s.allocation_id, s.variant, s.day, sum(s.units)::bigint as units, sum(s.total) as total, sum(s.squares) as squares,'
        ' sum(s.denominator_total) as denominator_total, sum(s.denominator_squares) as denominator_squares, sum(s.products) as products'
        ' from (select d.metric_id, d.allocation_id, d.variant, d.day, d.units, d.total, d.squares, d.denominator_total, d.denominator_squares, d.products'
        ' from dbscore.metric_day d union all select * from ('
        || dbscore.metric_changes('coalesce(e.counted_xact, ''0''::xid8)', '''18446744073709551615''::xid8', 'offset 0') || ') c) s group by s.metric_id, s.allocation_id, s.variant, s.day';
end
$block$;

create or replace function dbscore.count_anew(experiment_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
begin
    update dbscore.experiment e set counted_xact = null where e.experiment_id = count_anew.experiment_id;
    delete from dbscore.exposure_day d where d.experiment_id = count_anew.experiment_id;
    delete from dbscore.metric_day d using dbscore.metric m where m.experiment_id = count_anew.experiment_id and d.metric_id = m.metric_id;
end
$function$;

create or replace function dbscore.refresh_experiment(name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_experiment dbscore.experiment;
    complete xid8;
    since text;
    metric_id integer;
begin
    perform dbscore.make_partitions();
    perform from dbscore.experiment e where e.name = refresh_experiment.name for update;
    found_experiment := dbscore.experiment_named(name);
    complete := pg_snapshot_xmin(pg_current_snapshot());
    if found_experiment.counted_xact > complete then
        -- another cluster's numbers: the database was restored here
        perform dbscore.count_anew(found_experiment.experiment_id);
        update dbscore.assignment a set xact = '3', left_out_xact = case when a.left_out_xact is not null then '3'::xid8 end where a.experiment_id = found_experiment.experiment_id;
        update dbscore.outcome o set xact = '3' from dbscore.metric m where m.experiment_id = found_experiment.experiment_id and o.metric_id = m.metric_id;
    end if;
    since := format('%L::xid8', (select coalesce(e.counted_xact, '0') from dbscore.experiment e where e.experiment_id = found_experiment.experiment_id));
    execute format(
        'insert into dbscore.exposure_day as d (experiment_id, allocation_id, variant, day, units) select * from (%s) c where c.experiment_id = %s'
        ' on conflict (experiment_id, allocation_id, variant, day) do update set units = d.units + excluded.units',
        dbscore.exposure_changes(since, format('%L::xid8', complete)), found_experiment.experiment_id);
    -- metric by metric: the number of each gets into the query, that of the experiment would not
    for metric_id in select m.metric_id from dbscore.metric m where m.experiment_id = found_experiment.experiment_id
    loop
        execute format(
            'insert into dbscore.metric_day as d (metric_id, allocation_id, variant, day, units, total, squares, denominator_total, denominator_squares, products)'
            ' select c.* from (%s) c where c.metric_id = %s'
            ' on conflict (metric_id, allocation_id, variant, day) do update set units = d.units + excluded.units, total = d.total + excluded.total,'
            ' squares = d.squares + excluded.squares, denominator_total = d.denominator_total + excluded.denominator_total,'
            ' denominator_squares = d.denominator_squares + excluded.denominator_squares, products = d.products + excluded.products',
            dbscore.metric_changes(since, format('%L::xid8', complete), ''), metric_id);
    end loop;
    update dbscore.experiment e set counted_xact = complete where e.experiment_id = found_experiment.experiment_id;
    -- small tables that change seldom have no statistics by themselves, and plans for hundreds of experiments are slow for one
    analyze dbscore.experiment, dbscore.variant, dbscore.allocation, dbscore.metric, dbscore.exposure_day, dbscore.metric_day;
end
$function$;

create or replace function dbscore.refresh_experiments() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    named text;
begin
    for named in select e.name from dbscore.experiment e where e.status <> 'draft' order by e.experiment_id
    loop
        perform dbscore.refresh_experiment(named);
    end loop;
end
$function$;

-- --- for analysts ---

create or replace view dbscore.experiment_assignments with (security_barrier) as
select e.experiment, a.unit, case a.variant when 0 then 'holdout' else v.name end as variant, l.number as allocation,
    case when e.mode = 'shadow' or a.forced_by is not null then 1 else dbscore.propensity(a.variant, l.weights, (e.holdout * 10000)::integer) end as propensity,
    a.assigned_at,
    f.name as forced_variant, a.forced_by,
    case when a.forced_by is not null then 'forced' when a.left_out_xact is not null then 'seen in two variants' when a.variant = 0 then 'held out' end as left_out,
    a.by_application
from dbscore.experiments e
join dbscore.assignment a using (experiment_id)
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = a.experiment_id and v.number = a.variant
left join dbscore.variant f on f.experiment_id = a.experiment_id and f.number = a.forced_variant;

create or replace view dbscore.experiment_predictions with (security_barrier) as
select e.experiment, p.unit, case p.variant when 0 then 'holdout' else v.name end as variant, m.name || ':' || w.number as version, p.engine, p.is_served,
    p.prediction, p.label, p.probabilities,
    case when e.mode = 'shadow' or a.forced_by is not null then 1 else dbscore.propensity(a.variant, l.weights, (e.holdout * 10000)::integer) end as propensity, p.request_id, p.features, p.predicted_at
from dbscore.experiments e
join dbscore.prediction p using (experiment_id)
join dbscore.version w using (version_id)
join dbscore.model m using (model_id)
join dbscore.assignment a on a.experiment_id = p.experiment_id and a.unit = p.unit
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = p.experiment_id and v.number = p.variant;

create or replace view dbscore.experiment_outcomes with (security_barrier) as
select e.experiment, m.name as metric, o.unit, v.name as variant, o.value, o.denominator, o.label, o.predicted, o.occurred_at, o.recorded_at, o.recorded_by,
    reason.reason is null as counts, reason.reason
from dbscore.experiments e
join dbscore.metric m using (experiment_id)
join dbscore.outcome o using (metric_id)
left join dbscore.assignment a on a.experiment_id = e.experiment_id and a.unit = o.unit
left join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = coalesce(o.variant, a.variant)
cross join lateral (select case
    when a.unit is null then 'never exposed'
    when a.left_out_xact is not null then case when a.forced_by is not null then 'forced' else 'seen in two variants' end
    when a.variant = 0 then 'held out'
    when o.occurred_at < a.assigned_at then 'before the exposure'
    when o.occurred_at >= a.assigned_at + m."window" then 'after the window' end as reason) as reason;

-- the sums are taken experiment by experiment, metric by metric (`offset 0` keeps the condition within): a query of one of
-- them must not pay for what the others have recorded since they were refreshed
create or replace view dbscore.experiment_daily with (security_barrier) as
select e.experiment, m.name as metric, case s.variant when 0 then 'holdout' else v.name end as variant, l.number as allocation, s.day,
    s.assigned, coalesce(s.units, 0) as units, coalesce(s.total, 0) as total, coalesce(s.squares, 0) as squares,
    coalesce(s.denominator_total, 0) as denominator_total, coalesce(s.denominator_squares, 0) as denominator_squares, coalesce(s.products, 0) as products
from dbscore.experiments e
-- once, not for each metric
cross join lateral (select array_agg(x) as sums from dbscore.exposure_sums x where x.experiment_id = e.experiment_id) exposed
left join dbscore.metric m using (experiment_id)
cross join lateral (
    select allocation_id, variant, day, coalesce(x.units, 0) as assigned, d.units, d.total, d.squares, d.denominator_total, d.denominator_squares, d.products
    from unnest(exposed.sums) x
    -- in shadow mode a version has outcomes, and no units of its own
    full join (select d.* from dbscore.metric_sums d where d.metric_id = m.metric_id) d using (allocation_id, variant, day)
    offset 0
) s
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = s.variant;

create or replace view dbscore.experiment_summary with (security_barrier) as
with sums as (
    select d.experiment, m.metric_id, d.metric, m.kind, d.variant, d.allocation,
        case when dbscore.is_quality(m.kind) then sum(d.units) else sum(d.assigned) end::float8 as n,
        sum(d.total) as total, sum(d.squares) as squares, sum(d.denominator_total) as denominator_total,
        sum(d.denominator_squares) as denominator_squares, sum(d.products) as products
    from dbscore.experiment_daily d
    join dbscore.experiment e on e.name = d.experiment join dbscore.metric m on m.experiment_id = e.experiment_id and m.name = d.metric
    where m.kind not in ('quantile', 'auc')
    group by d.experiment, m.metric_id, d.metric, m.kind, d.variant, d.allocation
), moments as (
    select s.*, s.total / nullif(s.n, 0) as own_mean, case when s.n > 1 then greatest(0, (s.squares - s.total * s.total / s.n) / (s.n - 1)) end as own_variance,
        s.denominator_total / nullif(s.n, 0) as denominator_mean,
        case when s.n > 1 then greatest(0, (s.denominator_squares - s.denominator_total * s.denominator_total / s.n) / (s.n - 1)) end as denominator_variance,
        case when s.n > 1 then (s.products - s.total * s.denominator_total / s.n) / (s.n - 1) end as covariance
    from sums s
)
select t.experiment, t.metric, t.kind, t.variant, t.allocation, t.n::bigint as n, t.total as sum, t.squares as sum_of_squares,
    case t.kind when 'ratio' then t.total / nullif(t.denominator_total, 0) else t.own_mean end as mean,
    -- of a ratio by the delta method: of the unit's value less the ratio times its denominator, over the mean denominator
    case t.kind when 'ratio' then (
        t.own_variance - 2 * t.total / nullif(t.denominator_total, 0) * t.covariance
        + power(t.total / nullif(t.denominator_total, 0), 2) * t.denominator_variance) / nullif(power(t.denominator_mean, 2), 0)
    else t.own_variance end as variance,
    t.denominator_total as denominator_sum, t.denominator_squares as denominator_sum_of_squares, t.products as sum_of_products
from moments t;

create or replace view dbscore.experiment_results with (security_barrier) as
with arms as (
    select s.*, v.number,
        -- the control's beside it, by a window: a join with itself would read all experiments twice
        first_value(s.n) over arm as control_n, first_value(s.mean) over arm as control_mean, first_value(s.variance) over arm as control_variance,
        first_value(s.sum) over arm as control_sum, first_value(v.number) over arm as first_number
    from dbscore.experiment_summary s
    join dbscore.experiment e on e.name = s.experiment join dbscore.variant v on v.experiment_id = e.experiment_id and v.name = s.variant
    window arm as (partition by s.experiment, s.metric, s.allocation order by v.number)
), strata as (
    select t.experiment, t.metric, t.kind, t.variant, t.number, t.allocation, t.control_n, t.n, t.control_mean, t.mean,
        t.variance / t.n + t.control_variance / t.control_n as square_error,
        -- of shares under the hypothesis that they are equal
        case t.kind when 'conversion' then (t.sum + t.control_sum) / (t.n + t.control_n) * (1 - (t.sum + t.control_sum) / (t.n + t.control_n)) * (1.0 / t.n + 1.0 / t.control_n) end as pooled_square_error,
        t.control_variance / t.control_n as control_square_error, t.variance / t.n as own_square_error,
        (t.n + t.control_n) / sum(t.n + t.control_n) over (partition by t.experiment, t.metric, t.variant) as share
    from arms t
    where t.number > 1 and t.first_number = 1 and t.n > 1 and t.control_n > 1
), compared as (
    select s.experiment, s.metric, s.kind, s.variant, s.number, sum(s.control_n)::bigint as control_n, sum(s.n)::bigint as n,
        sum(s.share * s.control_mean)::float8 as control_mean, sum(s.share * s.mean)::float8 as mean, sum(s.share * (s.mean - s.control_mean))::float8 as difference,
        sqrt(sum(s.share * s.share * s.square_error)::float8) as standard_error,
        sqrt(sum(s.share * s.share * s.pooled_square_error)::float8) as pooled_error,
        sum(s.share * s.share * s.control_square_error)::float8 as control_square_error, sum(s.share * s.share * s.own_square_error)::float8 as own_square_error,
        count(*) as allocations
    from strata s group by s.experiment, s.metric, s.kind, s.variant, s.number
)
select c.experiment, c.metric, c.kind, m.direction, m.role, c.variant, c.control_n, c.n, c.control_mean, c.mean, c.difference,
    c.difference / nullif(abs(c.control_mean), 0) as lift, c.standard_error,
    c.difference - 1.959963984540054 * c.standard_error as lower, c.difference + 1.959963984540054 * c.standard_error as upper,
    c.difference / nullif(coalesce(c.pooled_error, c.standard_error), 0) as z,
    dbscore.normal_p(c.difference / nullif(coalesce(c.pooled_error, c.standard_error), 0)) as p,
    c.allocations, r.chi_square as sample_ratio_chi_square, dbscore.chi_square_p(r.chi_square, r.df) as sample_ratio_p,
    coalesce(dbscore.chi_square_p(r.chi_square, r.df) < 0.001, false) as sample_ratio_suspicious
from dbscore.experiment e
cross join lateral (
    select sum(x.chi_square) as chi_square, sum(x.df)::bigint as df
    from (
        select u.allocation, sum(case when u.expected > 0 then power(u.units - u.expected, 2) / u.expected when u.units > 0 then 'Infinity' else 0 end) as chi_square,
            greatest(0, count(*) filter (where u.expected > 0) - 1) as df
        from (
            select l.number as allocation, coalesce(s.units, 0) as units,
                l.weights[v.number] / 1e4::float8 * sum(coalesce(s.units, 0)) over (partition by l.allocation_id) as expected
            from dbscore.allocation l join dbscore.variant v using (experiment_id)
            left join (
                select x.allocation_id, x.variant, sum(x.units)::float8 as units from dbscore.exposure_sums x
                where x.experiment_id = e.experiment_id group by x.allocation_id, x.variant
            ) s on s.allocation_id = l.allocation_id and s.variant = v.number
            where l.experiment_id = e.experiment_id and e.mode = 'ab'
        ) u group by u.allocation
    ) x
) r
join compared c on c.experiment = e.name
join dbscore.metric m on m.experiment_id = e.experiment_id and m.name = c.metric;

comment on function dbscore.upper_gamma(double precision, double precision) is 'The regularised upper incomplete gamma function, for halves and whole numbers.';
comment on function dbscore.normal_p(double precision) is 'The probability of a standard normal number further from 0 than z.';
comment on function dbscore.chi_square_p(double precision, bigint) is 'The probability of a chi-square number above x.';
comment on function dbscore.exposure_changes(text, text) is 'The query of units that came or were left out since they were counted.';
comment on function dbscore.metric_changes(text, text, text) is 'The query of what outcomes change since they were counted.';
comment on view dbscore.exposure_sums is 'Units by variant, allocation and day.';
comment on view dbscore.metric_sums is 'Sums of outcomes by variant, allocation and day.';
comment on function dbscore.count_anew(integer) is 'Forgets an experiment''s sums: they are made anew.';
comment on function dbscore.refresh_experiment(text) is 'Adds what was recorded since the last time to the sums by day.';
comment on function dbscore.refresh_experiments() is 'Refreshes every experiment: for pg_cron.';
comment on view dbscore.experiment_assignments is 'Which variant each unit has, and why it may be left out of the analysis.';
comment on view dbscore.experiment_predictions is 'What was predicted for each unit, by which version.';
comment on view dbscore.experiment_outcomes is 'What came of each unit, and whether it counts.';
comment on view dbscore.experiment_daily is 'Units and outcomes by the day, in UTC, on which the units were assigned.';
comment on view dbscore.experiment_summary is 'n, sum, sum of squares, mean and variance of each variant, by metric and allocation.';
comment on view dbscore.experiment_results is 'Each variant beside the control: difference, lift, interval, p, and the sample-ratio check.';
