-- sql/059_experiment_sums.sql: what was assigned, and what came of it, added up by day.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0006, sql/058_outcomes.sql
--
-- Sums of days are kept in tables, and what was recorded since dbscore.refresh_experiment(name) last ran is added when a
-- view is read: the views are always true, and fast where it ran lately. Run it now and then, by pg_cron for example.
-- What is new is told by the numbers of transactions: all below the oldest one that still runs are complete.
--
-- dbscore.exposure_sums, dbscore.metric_sums    the sums as of now; for the owner
-- dbscore.refresh_experiment(name), dbscore.refresh_experiments()
-- dbscore.count_anew(experiment_id)             forgets the sums

-- what was recorded in transactions from one number on, to before another: units that came, less those left out since. The
-- rows of an experiment are taken by an index, which the planner would not see in a join: it would read the whole table.
-- It does not know where the counting ended, and takes what is new for a two-hundredth of everything: of large tables so
-- much that it would compile the query (jit), which takes longer than running it. A limit that it does not know, here
-- none, is a tenth of that to it, and a fence as `offset 0` is
create or replace function dbscore.exposure_changes(since text, before text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($query$
    select e.experiment_id, c.allocation_id, c.variant, c.day, sum(c.is_there - c.was_there)::bigint as units
    from dbscore.experiment e cross join lateral (
        select n.allocation_id, n.variant, (n.assigned_at at time zone 'UTC')::date as day,
            (n.left_out_xact is null or not n.left_out_xact < %2$s)::integer as is_there, 0 as was_there
        from (select a.* from dbscore.assignment a where a.experiment_id = e.experiment_id and a.xact >= %1$s and a.xact < %2$s limit (select null::bigint)) n
        union all
        select o.allocation_id, o.variant, (o.assigned_at at time zone 'UTC')::date, 0, 1
        from (
            select a.* from dbscore.assignment a
            where a.experiment_id = e.experiment_id and a.left_out_xact >= %1$s and a.left_out_xact < %2$s and a.xact < %1$s limit (select null::bigint)
        ) o
    ) c
    group by e.experiment_id, c.allocation_id, c.variant, c.day
$query$, since, before);

-- what a metric makes of one unit's outcomes o, and the sums of units u, of which some are taken out: their sign is -1
create or replace function dbscore.unit_value(kind text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($columns$
    case when %1$s = 'conversion' then (count(*) filter (where o.value <> 0) > 0)::integer
        when %1$s = 'count' then count(*)
        when %1$s in ('mean', 'ratio', 'quantile') then sum(o.value)
        else avg(o.value) end::float8 as value,
    coalesce(sum(o.denominator), 0) as denominator
$columns$, kind);

create or replace function dbscore.unit_sums() returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return $columns$
    sum(u.sign)::bigint as units, sum(u.sign * u.value) as total, sum(u.sign * u.value * u.value) as squares,
    sum(u.sign * u.denominator) as denominator_total, sum(u.sign * u.denominator * u.denominator) as denominator_squares,
    sum(u.sign * u.value * u.denominator) as products
$columns$;

-- what came of units, of experiments that were counted before: a unit with something new is taken out as it was, and put in
-- as it is. With the fence `offset 0` each unit's rows are looked up, which is right for few units; without it the planner
-- decides
create or replace function dbscore.metric_changes(since text, before text, fence text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($query$
    with touched as (
        select m.metric_id, n.unit
        from dbscore.experiment e join dbscore.metric m using (experiment_id)
        cross join lateral (select o.unit from dbscore.outcome o where o.metric_id = m.metric_id and o.xact >= %1$s and o.xact < %2$s limit (select null::bigint)) n
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
        select o.metric_id, o.allocation_id, o.variant, o.day, sign.sign, %4$s
        from outcomes o cross join (values (1), (-1)) as sign (sign)
        where case sign.sign when 1 then o.is_there else o.was_there end
        group by o.metric_id, o.kind, o.allocation_id, o.variant, o.day, o.unit, sign.sign
    )
    select u.metric_id, u.allocation_id, u.variant, u.day, %5$s
    from units u
    group by u.metric_id, u.allocation_id, u.variant, u.day
$query$, since, before, fence, dbscore.unit_value('o.kind'), dbscore.unit_sums());

-- the same of experiments that were not: all is new, so nothing is looked up, and nothing taken out. Few experiments are
-- read so, and the limits keep the others from paying for its plan
create or replace function dbscore.metric_beginnings(before text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format($query$
    select m.metric_id, c.*
    from dbscore.experiment e join dbscore.metric m using (experiment_id) cross join lateral (
        select u.allocation_id, u.variant, u.day, %2$s
        from (
            select o.allocation_id, o.variant, o.day, 1 as sign, %3$s
            from (
                select x.unit, a.allocation_id, coalesce(x.variant, a.variant) as variant, (a.assigned_at at time zone 'UTC')::date as day, x.value, x.denominator
                from (select x.* from dbscore.outcome x where x.metric_id = m.metric_id and x.xact < %1$s limit (select null::bigint)) x
                join (
                    select a.* from dbscore.assignment a
                    where a.experiment_id = m.experiment_id and a.xact < %1$s and (a.left_out_xact is null or not a.left_out_xact < %1$s) and a.variant > 0
                    limit (select null::bigint)
                ) a using (unit)
                where x.occurred_at >= a.assigned_at and (m."window" is null or x.occurred_at < a.assigned_at + m."window")
                limit (select null::bigint)
            ) o
            group by o.allocation_id, o.variant, o.day, o.unit
        ) u
        group by u.allocation_id, u.variant, u.day
    ) c
    where e.counted_xact is null
$query$, before, dbscore.unit_sums(), dbscore.unit_value('m.kind'));

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
        || dbscore.metric_changes('e.counted_xact', '''18446744073709551615''::xid8', 'offset 0') || ') c union all select * from ('
        || dbscore.metric_beginnings('''18446744073709551615''::xid8') || ') c) s group by s.metric_id, s.allocation_id, s.variant, s.day';
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
    before text;
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
    select * into found_experiment from dbscore.experiment e where e.experiment_id = found_experiment.experiment_id;
    before := format('%L::xid8', complete);
    execute format(
        'insert into dbscore.exposure_day as d (experiment_id, allocation_id, variant, day, units) select * from (%s) c where c.experiment_id = %s'
        ' on conflict (experiment_id, allocation_id, variant, day) do update set units = d.units + excluded.units',
        dbscore.exposure_changes(format('%L::xid8', coalesce(found_experiment.counted_xact, '0')), before), found_experiment.experiment_id);
    -- metric by metric: the number of each gets into the query, that of the experiment would not
    for metric_id in select m.metric_id from dbscore.metric m where m.experiment_id = found_experiment.experiment_id
    loop
        execute format(
            'insert into dbscore.metric_day as d (metric_id, allocation_id, variant, day, units, total, squares, denominator_total, denominator_squares, products)'
            ' select c.* from (%s) c where c.metric_id = %s'
            ' on conflict (metric_id, allocation_id, variant, day) do update set units = d.units + excluded.units, total = d.total + excluded.total,'
            ' squares = d.squares + excluded.squares, denominator_total = d.denominator_total + excluded.denominator_total,'
            ' denominator_squares = d.denominator_squares + excluded.denominator_squares, products = d.products + excluded.products',
            case when found_experiment.counted_xact is null then dbscore.metric_beginnings(before)
                else dbscore.metric_changes(format('%L::xid8', found_experiment.counted_xact), before, '') end, metric_id);
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

comment on function dbscore.exposure_changes(text, text) is 'The query of units that came or were left out since they were counted.';
comment on function dbscore.unit_value(text) is 'What a metric makes of the outcomes of a unit, as text.';
comment on function dbscore.unit_sums() is 'The sums of units, as text.';
comment on function dbscore.metric_changes(text, text, text) is 'The query of what outcomes change since they were counted.';
comment on function dbscore.metric_beginnings(text) is 'The query of what came of units of experiments that were never counted.';
comment on view dbscore.exposure_sums is 'Units by variant, allocation and day.';
comment on view dbscore.metric_sums is 'Sums of outcomes by variant, allocation and day.';
comment on function dbscore.count_anew(integer) is 'Forgets an experiment''s sums: they are made anew.';
comment on function dbscore.refresh_experiment(text) is 'Adds what was recorded since the last time to the sums by day.';
comment on function dbscore.refresh_experiments() is 'Refreshes every experiment: for pg_cron.';
