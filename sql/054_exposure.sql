-- sql/054_exposure.sql: what an experiment does with a unit: assigns it, predicts for it, records both.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/052_experiments.sql, sql/035_batch.sql
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
-- call dbscore.run_experiment(experiment, query, key, request_id)   assigns, predicts and records the rows of a query, which
--                                                              is run with the rights and in the search_path of the caller
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
    if to_regprocedure(format('experiments.%I(text)', experiment || '_assign')) is null then
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
    insert into dbscore.assignment as a (experiment_id, unit, variant, allocation_id, assigned_at)
    select found_experiment.experiment_id, note_assignment.unit, seen, l.allocation_id, at
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
    if to_regprocedure(format('experiments.%I(text, text, timestamptz)', experiment || '_exposure')) is null then
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

-- --- many units ---

-- raises where a relation is anything but what run_experiment makes: it is read as the owner, and nothing of the caller's
-- may be run by that
create or replace function dbscore.refuse_relation(relation regclass, columns text[], types text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    execute format('lock table only %s in access share mode', relation);
    if not exists (
        select from pg_class c
        where c.oid = relation and c.relkind = 'r' and c.relpersistence = 't' and c.relnamespace = pg_my_temp_schema()
          and not c.relrowsecurity and not c.relhasrules and not c.relhastriggers and not c.relhasindex and not c.relhassubclass
          and not c.relispartition and c.relchecks = 0
          and not exists (select from pg_statistic_ext s where s.stxrelid = c.oid)
          and not exists (select from pg_inherits i where c.oid in (i.inhrelid, i.inhparent))
          and not exists (select from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and (a.attisdropped or a.attgenerated <> '')))
        or (select (r.names, r.types) from dbscore.relation_columns(relation) r) is distinct from (columns, types)
    then
        raise exception 'relation % is not one that run_experiment has made', relation
        using errcode = 'ML014', hint = 'call dbscore.run_experiment(experiment, query, key).';
    end if;
end
$function$;

create or replace function dbscore.run_rows(experiment_id integer, relation regclass, request_id text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $function$
#variable_conflict use_column
declare
    found_experiment dbscore.experiment;
    control record;
    columns text[];
    period dbscore.allocation;
    part record;
    assigning text;
    inserting text;
    chosen text;
    columns_of text[];
    keys text[];
    at constant timestamptz := clock_timestamp();
    counted bigint;
    recorded bigint := 0;
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = run_rows.experiment_id;
    perform dbscore.refuse_status(found_experiment);
    select d.* into control from dbscore.variant_details d where d.experiment_id = run_rows.experiment_id and d.number = 1;
    columns := array(select f ->> 'name' from jsonb_array_elements(control.signature -> 'features') with ordinality as listed (f, i) order by i);
    perform dbscore.refuse_relation(relation, array['dbscore_unit'] || columns, array['text'] || array(
        select f ->> 'type' from jsonb_array_elements(control.signature -> 'features') with ordinality as listed (f, i) order by i));
    if request_id is not null and dbscore.claim_request(experiment_id, null, request_id, at) is not null then
        return 0;
    end if;
    execute format('select count(*) from only %s where dbscore_unit is null or dbscore_unit = ''''', relation) into counted;
    if counted > 0 then
        raise exception 'experiment %: % rows have a unit that is NULL or empty', found_experiment.name, counted
        using errcode = 'ML014', hint = 'Leave them out in the query.';
    end if;
    select l.* into period from dbscore.allocation l where l.experiment_id = run_rows.experiment_id and l.valid_to is null;
    -- the draw is written out, so that it is computed within the statement
    assigning := format(
        'insert into dbscore.assignment (experiment_id, unit, variant, allocation_id, assigned_at)'
        ' select %s, r.dbscore_unit, case%s else dbscore.variant_at(%L, dbscore.bucket(%L, %L, r.dbscore_unit)) end, %s, %L from only %s r where %s',
        experiment_id, case when found_experiment.holdout > 0 then format(' when dbscore.is_held_out(%L, %L, r.dbscore_unit, %s) then 0',
            found_experiment.scheme, found_experiment.salt, found_experiment.holdout) else ' when false then 0' end,
        period.boundaries, found_experiment.scheme, found_experiment.salt, period.allocation_id, at, relation,
        concat_ws(' and ',
            case when found_experiment.layer is not null then format('dbscore.layer_bucket(%L, %L, r.dbscore_unit) between %s and %s',
                found_experiment.scheme, found_experiment.layer, found_experiment.layer_from, found_experiment.layer_to - 1) end,
            case when found_experiment.eligible is not null then format(E'(%s\n)', found_experiment.eligible) end,
            format('not exists (select from dbscore.assignment a where a.experiment_id = %s and a.unit = r.dbscore_unit)', experiment_id)));
    begin
        execute assigning;
    exception when unique_violation then
        -- a unit that is there twice, or was assigned by another transaction meanwhile: each row is looked up then, which takes
        -- twice as long
        execute assigning || ' on conflict do nothing';
    end;
    keys := array['r.dbscore_unit'] || case when found_experiment.records_features then array['pg_catalog.to_jsonb(r) - ''dbscore_unit'''] else '{}' end;
    for part in
        select d.*, w.recorded_as, w.is_served, w.condition
        from dbscore.variant_details d cross join lateral (
            select d.number::integer as recorded_as, true as is_served, format('coalesce(a.forced_variant, a.variant) = %s', d.number) as condition
            where found_experiment.mode = 'ab'
            union all
            select 0, true, 'coalesce(a.forced_variant, a.variant) = 0' where found_experiment.mode = 'ab' and d.number = 1 and found_experiment.holdout > 0
            union all
            select d.number, s.served, format('(greatest(coalesce(a.forced_variant, a.variant), 1) = %s) = %L', d.number, s.served)
            from (values (true), (false)) as s (served)
            where found_experiment.mode = 'shadow' and (s.served = (d.number = 1)
                or exists (select from dbscore.assignment a where a.experiment_id = run_rows.experiment_id and a.left_out_xact is not null and a.forced_by is not null))
        ) as w
        where d.experiment_id = run_rows.experiment_id order by d.number, w.recorded_as
    loop
        columns_of := array(select f ->> 'name' from jsonb_array_elements(part.signature -> 'features') with ordinality as listed (f, i) order by i);
        inserting := format(
            'insert into dbscore.prediction (experiment_id, unit, variant, version_id, engine, is_served, %s, probabilities, request_id, features, predicted_at)'
            ' select %s, b.k1, %s, %s, %L, %L, %s, %s, %L, %s, %L from ',
            case part.type when 'text' then 'label' else 'prediction' end,
            experiment_id, part.recorded_as, part.version_id, part.batch_engine, part.is_served,
            case part.type when 'text' then 'b.prediction' when 'boolean' then 'b.prediction::integer' else 'b.prediction::float8' end,
            case when part.has_probabilities then 'b.probabilities' else 'null' end, request_id,
            case when found_experiment.records_features then 'b.k2' else 'null' end, at);
        chosen := format('from only %s r join dbscore.assignment a on a.experiment_id = %s and a.unit = r.dbscore_unit where %s', relation, experiment_id, part.condition);
        if part.batch_engine = 'sql' then
            execute format('%s (%s) b', inserting, dbscore.compiled_rows(part.model, part.version, part.signature, keys, 'r', columns_of, chosen));
            get diagnostics counted = row_count;
        else
            counted := dbscore.insert_scored(part.model, part.version, part.signature, keys, columns_of, chosen, inserting);
        end if;
        recorded := recorded + counted;
    end loop;
    return recorded;
end
$function$;

-- scores rows through a version's frame, some thousand at a time, and inserts each batch; returns how many
create or replace function dbscore.insert_scored(
    model text, version integer, signature jsonb, keys text[], columns text[], from_rows text, inserting text
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    packing constant text := dbscore.in_batches(
        'count(*)::integer as n, pg_catalog.array_agg(dbscore_k1) as k1, '
            || case cardinality(keys) when 1 then 'null::jsonb[]' else 'pg_catalog.array_agg(dbscore_k2)' end || ' as k2, ' || dbscore.packing(signature, columns),
        (select string_agg(format('%s as dbscore_k%s', k, i), ', ') from unnest(keys) with ordinality as listed (k, i))
            || (select string_agg(', r.' || quote_ident(c), '') from unnest(columns) c), from_rows, dbscore.rows_at_once(signature));
    scoring constant text := format(
        'select packed.n, packed.k1, packed.k2, answer.* from (%s) as packed cross join lateral dbscore_engine.%I(dbscore_engine.%I(), packed.numbers, packed.integers, packed.texts) as answer',
        packing, format('%s_v%s_frame', model, version), format('%s_v%s_pin', model, version));
    scored record;
    inserted bigint := 0;
    -- fetched one by one: a loop over the query would have ten of them in memory at once, and later fifty
    batches refcursor;
begin
    open batches no scroll for execute scoring;
    loop
        fetch batches into scored;
        exit when not found;
        perform dbscore.refuse_errors(scored.errors, scored.k1::text[]);
        execute format('%s (%s) b', inserting, dbscore.answering(signature, cardinality(keys), scored.nulls is not null, false))
        using scored.predictions, scored.probabilities, scored.labels, scored.nulls, scored.n, null::integer[], scored.k1, scored.k2;
        inserted := inserted + scored.n;
    end loop;
    close batches;
    return inserted;
end
$function$;

create or replace procedure dbscore.run_experiment(experiment text, query text, key text, request_id text default null, inout recorded bigint default null)
language plpgsql
as $procedure$
declare
    path constant text := pg_catalog.current_setting('search_path');
    making text;
begin
    making := dbscore.rows_of_experiment(experiment, query, key);
    if pg_catalog.to_regclass('pg_temp.dbscore_experiment_rows') is not null then
        -- of a call that failed in a block of the caller's
        drop table pg_temp.dbscore_experiment_rows;
    end if;
    -- as the caller, who may read what the query reads
    execute making;
    execute pg_catalog.format('select experiments.%I(''pg_temp.dbscore_experiment_rows''::pg_catalog.regclass, $1)', experiment operator(pg_catalog.||) '_rows')
    into recorded using request_id;
    drop table pg_temp.dbscore_experiment_rows;
end
$procedure$;

-- the statement that takes a query's rows down, each value in its feature's type
create or replace function dbscore.rows_of_experiment(experiment text, query text, key text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    features constant jsonb := (select e.features from dbscore.experiments e where e.experiment = rows_of_experiment.experiment);
begin
    if features is null then
        raise exception 'there is no experiment %', quote_nullable(experiment)
        using errcode = 'ML001', hint = 'select experiment from dbscore.experiments shows those there are.';
    elsif query is null or key is null then
        raise exception 'the % is NULL', case when query is null then 'query' else 'key' end
        using errcode = 'ML002', hint = 'Pass a query, and the name of its column that tells the units apart.';
    end if;
    return format(E'create temporary table dbscore_experiment_rows as select (%I)::pg_catalog.text collate pg_catalog."C" as dbscore_unit, %s from (%s\n) as asked order by 1', key,
        (select string_agg(format('(%1$I)::%2$s as %1$I', f ->> 'name', f ->> 'type'), ', ' order by i) from jsonb_array_elements(features) with ordinality as listed (f, i)),
        rtrim(query, E'; \n\t\r'));
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
comment on function dbscore.refuse_relation(regclass, text[], text[]) is 'Raises an error where a relation is not one that run_experiment has made.';
comment on function dbscore.run_rows(integer, regclass, text) is 'Assigns, predicts and records rows that were taken down.';
comment on function dbscore.insert_scored(text, integer, jsonb, text[], text[], text, text) is 'Scores rows through a version''s frame, and inserts each batch.';
comment on function dbscore.rows_of_experiment(text, text, text) is 'The statement that takes a query''s rows down.';
comment on procedure dbscore.run_experiment(text, text, text, text, bigint) is
    'Assigns, predicts and records the rows of a query: call dbscore.run_experiment(''tip_test'', ''select * from customers'', ''customer_id'').';
