-- sql/062_analysis.sql: what the analysis of experiments reads unit by unit: for members of the owner.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0006, sql/054_exposure.sql, sql/058_outcomes.sql
--
-- dbscore.unit_values(experiment, metric)   one row per unit that counts, in shadow mode one per unit and variant
--   unit, variant, allocation   the numbers of the variant, from 1, and of the period in which the unit was assigned
--   value        as dbscore.experiment_summary adds it up; 0 without an outcome, but quantiles and what compares predictions with
--                the truth have no row then. Of auc the truth of the last outcome, as 0 or 1
--   denominator  of a ratio; 0 without an outcome, and of other metrics
--   predicted    of a metric of quality: the number that the last truth was compared with
--   is_right     in shadow mode, of classifiers: whether the predicted class was the last truth
--   assigned_at  when the unit was assigned
--   errors       ML001 no such experiment or metric
-- dbscore.audit_experiment(name)   recorded assignments that are not what the allocation, layer, holdout, scheme and salt make of
--                                  them; forced ones are not looked at
--   recorded, expected  names of variants, or holdout; expected is NULL where the unit is in another part of the layer
--   by_application      an application has recorded the assignment, and may have drawn it otherwise; else the experiment itself
--   errors              ML001 no such experiment

create or replace function dbscore.unit_values(experiment text, metric text)
returns table (
    unit text, variant integer, allocation integer, value double precision, denominator double precision, predicted double precision, is_right boolean,
    assigned_at timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
-- all units are read: where nothing is known of the tables yet, the planner would look up each one in all the others
set enable_nestloop = off
as $function$
#variable_conflict use_column
declare
    e constant dbscore.experiment := dbscore.experiment_named(experiment);
    m constant dbscore.metric := dbscore.metric_named(e.experiment_id, metric);
begin
    return query
    with units as (
        select a.unit, a.variant, a.assigned_at, l.number as allocation
        from dbscore.assignment a join dbscore.allocation l using (allocation_id)
        where a.experiment_id = e.experiment_id and a.variant > 0 and a.left_out_xact is null
    ), outcomes as (
        select u.unit, coalesce(o.variant, u.variant) as variant,
            case m.kind when 'conversion' then (count(*) filter (where o.value <> 0) > 0)::integer::float8
                when 'count' then count(*)::float8
                when 'auc' then (array_agg(o.value order by o.occurred_at desc, o.recorded_at desc))[1]
                when 'mean' then sum(o.value) when 'ratio' then sum(o.value) when 'quantile' then sum(o.value)
                else avg(o.value) end as value,
            sum(o.denominator) as denominator,
            (array_agg(o.predicted order by o.occurred_at desc, o.recorded_at desc))[1] as predicted,
            (array_agg(o.label order by o.occurred_at desc, o.recorded_at desc))[1] as label,
            max(o.occurred_at) as occurred_at
        from units u join dbscore.outcome o on o.metric_id = m.metric_id and o.unit = u.unit
        where o.occurred_at >= u.assigned_at and (m."window" is null or o.occurred_at < u.assigned_at + m."window")
        group by u.unit, coalesce(o.variant, u.variant)
    )
    select u.unit, coalesce(o.variant, u.variant)::integer, u.allocation, coalesce(o.value, 0), coalesce(o.denominator, 0), o.predicted,
        case when e.mode = 'shadow' and m.kind in ('log_loss', 'brier', 'auc') then (
            select case when p.label is not null then p.label = o.label
                else p.prediction = case when o.label in ('true', 't') then 1 when o.label in ('false', 'f') then 0
                    when o.label ~ '^-?[0-9]+[.]?[0-9]*$' then o.label::float8 end end
            from dbscore.prediction p
            where p.experiment_id = e.experiment_id and p.unit = u.unit and p.variant = o.variant and p.predicted_at <= o.occurred_at
            order by p.predicted_at desc limit 1) end,
        u.assigned_at
    from units u left join outcomes o using (unit)
    where o.unit is not null or m.kind in ('conversion', 'mean', 'count', 'ratio');
end
$function$;

create or replace function dbscore.audit_experiment(name text)
returns table (unit text, recorded text, expected text, allocation integer, assigned_at timestamptz, by_application boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    e constant dbscore.experiment := dbscore.experiment_named(name);
begin
    return query
    select d.unit, case d.variant when 0 then 'holdout' else coalesce(r.name, d.variant::text) end, case d.drawn when 0 then 'holdout' else x.name end,
        d.number, d.assigned_at, d.by_application
    from (
        -- dbscore.drawn_variant() written out, so that it becomes part of the query: a call for each row takes five times as long
        select a.unit, a.variant, l.number, a.assigned_at, a.by_application,
            case when e.layer is not null and dbscore.layer_bucket(e.scheme, e.layer, a.unit) not between e.layer_from and e.layer_to - 1 then null
                when dbscore.is_held_out(e.scheme, e.salt, a.unit, e.holdout) then 0
                else dbscore.variant_at(l.boundaries, dbscore.bucket(e.scheme, e.salt, a.unit)) end as drawn
        from dbscore.assignment a left join dbscore.allocation l on l.allocation_id = a.allocation_id and l.experiment_id = e.experiment_id
        where a.experiment_id = e.experiment_id and a.forced_by is null
        offset 0
    ) d
    left join dbscore.variant r on r.experiment_id = e.experiment_id and r.number = d.variant
    left join dbscore.variant x on x.experiment_id = e.experiment_id and x.number = d.drawn
    where d.drawn is distinct from d.variant
    order by d.assigned_at, d.unit;
end
$function$;

comment on function dbscore.unit_values(text, text) is 'What came of each unit that counts, by one metric: select * from dbscore.unit_values(''tip_test'', ''tip_paid'').';
comment on function dbscore.audit_experiment(text) is 'Recorded assignments that are not what they are to be: select * from dbscore.audit_experiment(''tip_test'').';
