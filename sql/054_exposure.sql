-- sql/054_exposure.sql: what an experiment does with a unit: assigns it, predicts for it, records both.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0006, sql/052_experiments.sql
--
-- Each experiment has functions of its own, in the schema `experiments`; they act as the owner of the schema dbscore, who
-- alone writes what is recorded, and are granted one by one:
--   experiments.tip_test(customer_id, features..., request_id) -> variant, version, prediction[, probabilities]
--   experiments.tip_test(row)                     the same for the rows of the tables that the control's model takes
--   experiments.tip_test_assign(customer_id)      the variant that the unit has, or would get; writes nothing
--   experiments.tip_test_variant(customer_id)     the variant that a new unit gets now: part of the query, no look at a table
--   experiments.tip_test_exposure(...)            the variant that a unit has seen elsewhere
--   experiments.tip_test_outcome(...)             what came of a unit
--   experiments.tip_test_rows(relation, request_id)   what run_experiment calls
--   experiments.tip_test_log                      a view of what was predicted, typed
--
-- dbscore.assign(experiment, unit) -> text                     calls tip_test_assign
-- dbscore.record_assignment(experiment, unit, variant, at)     where an application assigns by itself, with an SDK: a unit that
--                                                              was seen in two variants is left out of the analysis
-- dbscore.force_assignment(experiment, unit, variant)          for testers: left out of the analysis
-- dbscore.grant_experiment(name, role), revoke_experiment
-- errors: ML001 no such experiment; ML002 the features do not fit; ML014 it is not running, or the unit is NULL or empty

create or replace function dbscore.refuse_unit(experiment text, unit text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if unit is null or unit = '' then
        raise exception 'experiment %: the unit is %', experiment, case when unit is null then 'NULL' else 'empty' end
        using errcode = 'ML014', hint = 'Pass what tells the unit apart from others.';
    end if;
end
$function$;

create or replace function dbscore.refuse_status(experiment dbscore.experiment) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if experiment.status <> 'running' then
        raise exception 'experiment % is %', experiment.name, case when experiment.status = 'draft' then 'a draft' else experiment.status end
        using errcode = 'ML014', hint = case experiment.status
            when 'concluded' then coalesce(format('Its winner is %s. ', experiment.winner), '') || 'Ask the model itself.'
            else format('Start it: select dbscore.start_experiment(%L). Until then, ask the model itself.', experiment.name) end;
    end if;
end
$function$;

-- which variant a unit gets where it has none yet: NULL where it is in another part of the layer, 0 where it is held out
create or replace function dbscore.drawn_variant(experiment dbscore.experiment, boundaries integer[], unit text) returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
return case
    when experiment.layer is not null
        and dbscore.layer_bucket(experiment.scheme, experiment.layer, unit) not between experiment.layer_from and experiment.layer_to - 1 then null
    when dbscore.is_held_out(experiment.scheme, experiment.salt, unit, experiment.holdout) then 0
    else dbscore.variant_at(boundaries, dbscore.bucket(experiment.scheme, experiment.salt, unit))
end;

create or replace function dbscore.propensity(variant integer, weights integer[], holdout integer) returns double precision
language sql immutable
set search_path = pg_catalog, pg_temp
return case when variant = 0 then holdout / 1e4::float8 else weights[variant] / 1e4::float8 * (1 - holdout / 1e4::float8) end;

-- the variant of a unit, recorded where it is new; NULL where the unit does not take part
create or replace function dbscore.expose(experiment_id integer, unit text, is_eligible boolean, at timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_experiment dbscore.experiment;
    period dbscore.allocation;
    drawn integer;
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = expose.experiment_id;
    perform dbscore.refuse_status(found_experiment);
    perform dbscore.refuse_unit(found_experiment.name, unit);
    for attempt in 1 .. 2
    loop
        select coalesce(a.forced_variant, a.variant) into drawn from dbscore.assignment a where a.experiment_id = expose.experiment_id and a.unit = expose.unit;
        if drawn is not null then
            return drawn;
        end if;
        exit when is_eligible is not true;
        select l.* into period from dbscore.allocation l where l.experiment_id = expose.experiment_id and l.valid_to is null;
        drawn := dbscore.drawn_variant(found_experiment, period.boundaries, unit);
        exit when drawn is null;
        insert into dbscore.assignment (experiment_id, unit, variant, allocation_id, assigned_at)
        values (expose.experiment_id, expose.unit, drawn, period.allocation_id, at) on conflict do nothing;
        if found then
            return drawn;
        end if;
        -- another transaction was first, and has committed: its variant is the unit's
    end loop;
    return null;
end
$function$;

-- takes a request's number; returns when it was answered where it was answered before
create or replace function dbscore.claim_request(experiment_id integer, unit text, request_id text, at timestamptz) returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    earlier dbscore.request;
begin
    insert into dbscore.request (experiment_id, request_id, unit, predicted_at)
    values (claim_request.experiment_id, claim_request.request_id, claim_request.unit, at) on conflict do nothing;
    if found then
        return null;
    end if;
    select r.* into earlier from dbscore.request r where r.experiment_id = claim_request.experiment_id and r.request_id = claim_request.request_id;
    if earlier.unit is distinct from unit then
        raise exception 'request % was about %', quote_literal(request_id), coalesce('unit ' || quote_literal(earlier.unit), 'many units')
        using errcode = 'ML014', hint = 'Give each request an id of its own, and the same one only where it is tried again.';
    end if;
    return earlier.predicted_at;
end
$function$;

create or replace function dbscore.assign(experiment text, unit text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    assigned text;
begin
    if experiment is null or to_regprocedure(format('experiments.%I(text)', experiment || '_assign')) is null then
        raise exception 'there is no experiment %', quote_nullable(experiment)
        using errcode = 'ML001', hint = 'select experiment from dbscore.experiments shows those there are.';
    end if;
    execute format('select experiments.%I($1)', experiment || '_assign') into assigned using unit;
    return assigned;
end
$function$;

-- the variant that a unit has, or would get now
create or replace function dbscore.assigned_variant(experiment_id integer, unit text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_experiment dbscore.experiment;
    drawn integer;
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = assigned_variant.experiment_id;
    perform dbscore.refuse_unit(found_experiment.name, unit);
    drawn := coalesce(
        (select coalesce(a.forced_variant, a.variant) from dbscore.assignment a where a.experiment_id = assigned_variant.experiment_id and a.unit = assigned_variant.unit),
        (select dbscore.drawn_variant(found_experiment, l.boundaries, unit) from dbscore.allocation l
         where l.experiment_id = assigned_variant.experiment_id order by l.number desc limit 1));
    return case drawn when 0 then 'holdout' else (
        select v.name from dbscore.variant v where v.experiment_id = assigned_variant.experiment_id and v.number = drawn) end;
end
$function$;

create or replace function dbscore.note_assignment(experiment_id integer, unit text, variant text, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_experiment dbscore.experiment;
    seen integer;
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = note_assignment.experiment_id;
    perform dbscore.refuse_status(found_experiment);
    perform dbscore.refuse_unit(found_experiment.name, unit);
    seen := dbscore.variant_number(found_experiment, variant);
    if at is null or not isfinite(at) then
        raise exception 'the time of the exposure is %', coalesce(at::text, 'NULL') using errcode = 'ML014', hint = 'Say when the unit saw it.';
    end if;
    insert into dbscore.assignment as a (experiment_id, unit, variant, allocation_id, assigned_at, by_application)
    select found_experiment.experiment_id, note_assignment.unit, seen, l.allocation_id, at, true
    from dbscore.allocation l where l.experiment_id = found_experiment.experiment_id and l.valid_to is null
    on conflict (experiment_id, unit) do update set left_out_xact = pg_current_xact_id()
    where a.variant <> excluded.variant and a.left_out_xact is null;
end
$function$;

create or replace function dbscore.record_assignment(experiment text, unit text, variant text, at timestamptz default now()) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    if experiment is null or to_regprocedure(format('experiments.%I(text, text, timestamptz)', experiment || '_exposure')) is null then
        raise exception 'there is no experiment %', quote_nullable(experiment)
        using errcode = 'ML001', hint = 'select experiment from dbscore.experiments shows those there are.';
    end if;
    execute format('select experiments.%I($1, $2, $3)', experiment || '_exposure') using unit, variant, at;
end
$function$;

create or replace function dbscore.variant_number(experiment dbscore.experiment, variant text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_number constant integer := (select v.number from dbscore.variant v where v.experiment_id = experiment.experiment_id and v.name = variant);
begin
    if found_number is null then
        raise exception 'experiment % has no variant %', experiment.name, quote_nullable(variant)
        using errcode = 'ML001', hint = format('Its variants: %s.',
            (select string_agg(v.name, ', ' order by v.number) from dbscore.variant v where v.experiment_id = experiment.experiment_id));
    end if;
    return found_number;
end
$function$;

create or replace function dbscore.force_assignment(experiment text, unit text, variant text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_experiment constant dbscore.experiment := dbscore.experiment_named(experiment);
    chosen constant integer := dbscore.variant_number(found_experiment, variant);
begin
    perform dbscore.refuse_unit(experiment, unit);
    insert into dbscore.assignment as a (experiment_id, unit, variant, allocation_id, forced_variant, forced_by, left_out_xact)
    select found_experiment.experiment_id, force_assignment.unit, chosen, l.allocation_id, chosen, session_user, pg_current_xact_id()
    from dbscore.allocation l where l.experiment_id = found_experiment.experiment_id order by l.number desc limit 1
    on conflict (experiment_id, unit) do update
    set forced_variant = excluded.forced_variant, forced_by = excluded.forced_by, left_out_xact = coalesce(a.left_out_xact, excluded.left_out_xact);
end
$function$;

comment on function dbscore.refuse_unit(text, text) is 'Raises an error where a unit is NULL or empty.';
comment on function dbscore.refuse_status(dbscore.experiment) is 'Raises an error where an experiment is not running.';
comment on function dbscore.drawn_variant(dbscore.experiment, integer[], text) is 'The number of the variant that a new unit gets; 0: held out; NULL: it does not take part.';
comment on function dbscore.propensity(integer, integer[], integer) is 'How likely a unit was to get a variant.';
comment on function dbscore.expose(integer, text, boolean, timestamptz) is 'The variant of a unit, recorded where it is new.';
comment on function dbscore.claim_request(integer, text, text, timestamptz) is 'Takes a request''s id; returns when it was answered before.';
comment on function dbscore.assign(text, text) is 'The variant that a unit has, or would get; writes nothing: select dbscore.assign(''tip_test'', ''42'').';
comment on function dbscore.assigned_variant(integer, text) is 'The variant that a unit has, or would get.';
comment on function dbscore.note_assignment(integer, text, text, timestamptz) is 'Records the variant that a unit has seen elsewhere.';
comment on function dbscore.record_assignment(text, text, text, timestamptz) is
    'Records the variant that a unit has seen elsewhere: select dbscore.record_assignment(''tip_test'', ''42'', ''treatment'').';
comment on function dbscore.variant_number(dbscore.experiment, text) is 'The number of a variant.';
comment on function dbscore.force_assignment(text, text, text) is 'Gives a tester''s unit a variant; it is left out of the analysis.';
