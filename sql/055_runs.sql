-- sql/055_runs.sql: what an experiment does with many units at once.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/054_exposure.sql, sql/035_batch.sql
--
-- call dbscore.run_experiment(experiment, query, key, request_id)   assigns, predicts and records the rows of a query, which
--                                                              is run with the rights and in the search_path of the caller
-- errors: ML001 no such experiment; ML002 the query or the key is NULL; ML014 it is not running, a unit is NULL or empty, or the
--         request was about something else

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

comment on function dbscore.refuse_relation(regclass, text[], text[]) is 'Raises an error where a relation is not one that run_experiment has made.';
comment on function dbscore.run_rows(integer, regclass, text) is 'Assigns, predicts and records rows that were taken down.';
comment on function dbscore.insert_scored(text, integer, jsonb, text[], text[], text, text) is 'Scores rows through a version''s frame, and inserts each batch.';
comment on function dbscore.rows_of_experiment(text, text, text) is 'The statement that takes a query''s rows down.';
comment on procedure dbscore.run_experiment(text, text, text, text, bigint) is
    'Assigns, predicts and records the rows of a query: call dbscore.run_experiment(''tip_test'', ''select * from customers'', ''customer_id'').';
