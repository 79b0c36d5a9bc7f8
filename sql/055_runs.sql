-- sql/055_runs.sql: what an experiment does with many units at once.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/054_exposure.sql, sql/035_batch.sql
--
-- call dbscore.run_experiment(experiment, query, key, request_id)   assigns, predicts and records the rows of a query, which
--                                                              is run with the rights and in the search_path of the caller
-- errors: ML001 no such experiment; ML002 the query or the key is NULL; ML014 it is not running, a unit is NULL or empty, or the
--         request was about something else

-- the table that a query's rows are taken down in, each with its unit's bucket: NULL in another part of the layer, -1 held
-- out. The caller may only insert. It is the owner's, so that nothing of the caller's is run when it is read
create or replace function dbscore.make_rows(experiment_id integer, caller name) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $function$
#variable_conflict use_column
declare
    e dbscore.experiment;
    relation constant text := format('pg_temp.dbscore_rows_%s', experiment_id);
begin
    select x.* into e from dbscore.experiment x where x.experiment_id = make_rows.experiment_id;
    perform dbscore.refuse_status(e);
    -- of a call that failed in a block of the caller's
    execute format('drop table if exists %s', relation);
    execute format('create temporary table %s (dbscore_unit text collate "C", %s, dbscore_bucket integer generated always as (case%s%s else dbscore.bucket(%L, %L, dbscore_unit) end) stored) on commit drop',
        split_part(relation, '.', 2),
        (select string_agg(format('%I %s', f ->> 'name', f ->> 'type'), ', ' order by i)
         from dbscore.variant_details d cross join jsonb_array_elements(d.signature -> 'features') with ordinality as listed (f, i)
         where d.experiment_id = make_rows.experiment_id and d.number = 1),
        case when e.layer is null then ' when false then null' else format(' when dbscore.layer_bucket(%L, %L, dbscore_unit) not between %s and %s then null',
            e.scheme, e.layer, e.layer_from, e.layer_to - 1) end,
        case when e.holdout > 0 then format(' when dbscore.is_held_out(%L, %L, dbscore_unit, %s) then -1', e.scheme, e.salt, e.holdout) end,
        e.scheme, e.salt);
    execute format('grant insert on %s to %I', relation, caller);
end
$function$;

create or replace function dbscore.run_rows(experiment_id integer, request_id text) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_nestloop = on
as $function$
#variable_conflict use_column
declare
    found_experiment dbscore.experiment;
    relation text := format('pg_temp.dbscore_rows_%s', experiment_id);
    period dbscore.allocation;
    part record;
    drawn text;
    assigning text;
    inserting text;
    columns_of text[];
    keys text[];
    at constant timestamptz := clock_timestamp();
    total bigint;
    in_layer bigint;
    counted bigint;
    are_new boolean;
    recorded bigint := 0;
begin
    select e.* into found_experiment from dbscore.experiment e where e.experiment_id = run_rows.experiment_id;
    perform dbscore.refuse_status(found_experiment);
    if not exists (select from pg_class c where c.oid = to_regclass(relation) and c.relnamespace = pg_my_temp_schema() and c.relowner = current_user::regrole) then
        raise exception 'experiment %: no rows were taken down', found_experiment.name
        using errcode = 'ML014', hint = 'call dbscore.run_experiment(experiment, query, key).';
    elsif request_id is not null and dbscore.claim_request(experiment_id, null, request_id, at) is not null then
        execute format('drop table %s', relation);
        return 0;
    end if;
    execute format('select count(*), count(dbscore_bucket), count(*) filter (where dbscore_unit is null or dbscore_unit = '''') from %s', relation) into total, in_layer, counted;
    if counted > 0 then
        raise exception 'experiment %: % rows have a unit that is NULL or empty', found_experiment.name, counted
        using errcode = 'ML014', hint = 'Leave them out in the query.';
    elsif total > 10000 then
        -- what is known of tables that grow fast is old: for many rows a plan is taken that is good for any number
        perform set_config('enable_nestloop', 'off', true);
    end if;
    select l.* into period from dbscore.allocation l where l.experiment_id = run_rows.experiment_id and l.valid_to is null;
    drawn := format('case when r.dbscore_bucket < 0 then 0 else dbscore.variant_at(%L, r.dbscore_bucket) end', period.boundaries);
    assigning := format(
        'insert into dbscore.assignment (experiment_id, unit, variant, allocation_id, assigned_at)'
        ' select %1$s, r.dbscore_unit, %2$s, %3$s, %4$L from %5$s r where r.dbscore_bucket is not null%6$s%7$s',
        experiment_id, drawn, period.allocation_id, at, relation, E' and (' || found_experiment.eligible || E'\n)',
        case when exists (select from dbscore.assignment a where a.experiment_id = run_rows.experiment_id) then
            format(' and not exists (select from dbscore.assignment a where a.experiment_id = %s and a.unit = r.dbscore_unit)', experiment_id) end);
    begin
        execute assigning;
        get diagnostics counted = row_count;
        are_new := counted = in_layer;
    exception when unique_violation then
        -- a unit that is there twice, or was assigned by another transaction meanwhile
        execute assigning || ' on conflict do nothing';
        are_new := false;
    end;
    if not are_new then
        -- some have what was drawn for them before, or forced, or are not eligible: looked up once for all
        execute format('create temporary table dbscore_known_%1$s on commit drop as select r.*, coalesce(a.forced_variant, a.variant) as dbscore_variant'
                       ' from %2$s r join dbscore.assignment a on a.experiment_id = %1$s and a.unit = r.dbscore_unit order by r.dbscore_unit', experiment_id, relation);
        execute format('drop table %s', relation);
        relation := format('pg_temp.dbscore_known_%s', experiment_id);
        drawn := 'r.dbscore_variant';
    end if;
    keys := array['r.dbscore_unit'] || case when found_experiment.records_features then array['pg_catalog.to_jsonb(r) - ''{dbscore_unit,dbscore_bucket,dbscore_variant}''::pg_catalog.text[]'] else '{}' end;
    for part in
        select d.*, w.recorded_as, w.is_served, w.condition
        from dbscore.variant_details d cross join lateral (
            select d.number::integer as recorded_as, true as is_served, format('%s = %s', drawn, d.number) as condition
            where found_experiment.mode = 'ab'
            union all
            select 0, true, drawn || ' = 0' where found_experiment.mode = 'ab' and d.number = 1 and found_experiment.holdout > 0
            union all
            select d.number, s.served, format('(greatest(%s, 1) = %s) = %L', drawn, d.number, s.served)
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
        if part.batch_engine = 'sql' then
            execute format('%s (%s) b', inserting,
                dbscore.compiled_rows(part.model, part.version, part.signature, keys, 'r', columns_of, format('from %s r where %s', relation, part.condition)));
            get diagnostics counted = row_count;
        else
            counted := dbscore.insert_scored(part.model, part.version, part.signature, keys, columns_of, relation, part.condition, inserting);
        end if;
        recorded := recorded + counted;
    end loop;
    execute format('drop table %s', relation);
    return recorded;
end
$function$;

-- scores rows of a table through a version's frame, some thousand at a time, and inserts each batch; returns how many. A batch
-- is a range of the table's blocks, so that nothing has to be sorted
create or replace function dbscore.insert_scored(
    model text, version integer, signature jsonb, keys text[], columns text[], relation text, condition text, inserting text
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    packing constant text := format('select count(*)::integer as n, %s, %s, %s from %s r where %s and r.ctid >= $1 and r.ctid < $2 having count(*) > 0',
        format('pg_catalog.array_agg(%s) as k1', keys[1]),
        case cardinality(keys) when 1 then 'null::jsonb[]' else format('pg_catalog.array_agg(%s)', keys[2]) end || ' as k2',
        dbscore.packing(signature, columns), relation, condition);
    scoring constant text := format(
        'select packed.n, packed.k1, packed.k2, answer.* from (%s) as packed cross join lateral dbscore_engine.%I(dbscore_engine.%I(), packed.numbers, packed.integers, packed.texts) as answer',
        packing, format('%s_v%s_frame', model, version), format('%s_v%s_pin', model, version));
    blocks constant bigint := pg_relation_size(relation::regclass) / current_setting('block_size')::integer;
    total bigint;
    step bigint;
    scored record;
    inserted bigint := 0;
begin
    execute format('select count(*) from %s r where %s', relation, condition) into total;
    step := greatest(1, blocks * dbscore.rows_at_once(signature) / greatest(total, 1));
    for block in 0 .. case when total > 0 then blocks - 1 else -1 end by step
    loop
        execute scoring into scored using format('(%s,0)', block)::tid, format('(%s,0)', block + step)::tid;
        continue when scored.n is null;
        perform dbscore.refuse_errors(scored.errors, scored.k1::text[]);
        execute format('%s (%s) b', inserting, dbscore.answering(signature, cardinality(keys), scored.nulls is not null, false))
        using scored.predictions, scored.probabilities, scored.labels, scored.nulls, scored.n, null::integer[], scored.k1, scored.k2;
        inserted := inserted + scored.n;
    end loop;
    return inserted;
end
$function$;

create or replace procedure dbscore.run_experiment(experiment text, query text, key text, request_id text default null, inout recorded bigint default null)
language plpgsql
as $procedure$
declare
    taking constant text := dbscore.rows_of_experiment(experiment, query, key);
begin
    execute pg_catalog.format('select experiments.%I(current_user)', experiment operator(pg_catalog.||) '_table');
    -- as the caller, who may read what the query reads
    execute taking;
    execute pg_catalog.format('select experiments.%I($1)', experiment operator(pg_catalog.||) '_rows') into recorded using request_id;
end
$procedure$;

-- the statement that takes a query's rows down, each value in its feature's type, and in the order of the units: so they come
-- to the indexes in theirs
create or replace function dbscore.rows_of_experiment(experiment text, query text, key text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    e record;
begin
    select x.* into e from dbscore.experiments x where x.experiment = rows_of_experiment.experiment;
    if not found then
        raise exception 'there is no experiment %', quote_nullable(experiment)
        using errcode = 'ML001', hint = 'select experiment from dbscore.experiments shows those there are.';
    elsif query is null or key is null then
        raise exception 'the % is NULL', case when query is null then 'query' else 'key' end
        using errcode = 'ML002', hint = 'Pass a query, and the name of its column that tells the units apart.';
    elsif e.status = 'concluded' then
        -- its functions are those that it had when it was concluded
        raise exception 'experiment % is concluded', experiment using errcode = 'ML014', hint = 'Ask the model itself.';
    end if;
    return (
        select format(E'insert into pg_temp.dbscore_rows_%s (dbscore_unit, %s) select (%I)::pg_catalog.text collate pg_catalog."C", %s from (%s\n) as asked order by 1', e.experiment_id,
            string_agg(quote_ident(f ->> 'name'), ', ' order by i), key, string_agg(format('(%I)::%s', f ->> 'name', f ->> 'type'), ', ' order by i),
            rtrim(query, E'; \n\t\r'))
        from jsonb_array_elements(e.features) with ordinality as listed (f, i));
end
$function$;

comment on function dbscore.make_rows(integer, name) is 'Makes the table that the rows of a query are taken down in.';
comment on function dbscore.run_rows(integer, text) is 'Assigns, predicts and records rows that were taken down.';
comment on function dbscore.insert_scored(text, integer, jsonb, text[], text[], text, text, text) is 'Scores rows through a version''s frame, and inserts each batch.';
comment on function dbscore.rows_of_experiment(text, text, text) is 'The statement that takes a query''s rows down.';
comment on procedure dbscore.run_experiment(text, text, text, text, bigint) is
    'Assigns, predicts and records the rows of a query: call dbscore.run_experiment(''tip_test'', ''select * from customers'', ''customer_id'').';
