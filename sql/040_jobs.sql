-- sql/040_jobs.sql: whole-table scoring: what a job is, and all that is checked before there is one.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/020_registry.sql, sql/035_batch.sql, sql/039_job_target.sql
--
-- Everything about jobs runs with the rights of its caller: the source is read and the results are written with them.
-- Names in the source and the where clause are looked up in the search_path that the job was made with. Row level
-- security on dbscore.job and dbscore.chunk lets a role see and change its own jobs only; only the role that made a job
-- works on it, since its texts run with the worker's rights.
--
-- dbscore.create_job(reference, key, into_table, source | query, ...) -> job_id    checks everything, plans the chunks
--   reference   'churn' (its champion), 'churn@challenger' or 'churn:3'; the version is fixed here
--   key         the columns that together tell the rows apart
--   mode        append, replace or upsert; none where the result table is not there yet
--   incremental only rows that have no prediction of this version yet
--   primary_key whether a table that the job makes gets one: the key and the version
--   max_errors  how many rows that the model cannot take may be set aside, in <into_table>_errors
--   runs_on     server, client or auto: where the version's functions are, the server
--   errors      ML001 no such version or source; ML002 the features do not fit; ML007 another job has the table;
--               ML009 the server cannot score; ML012 anything else that a job is refused for

-- the class of the advisory locks that workers hold on their job's number: 'db' in ASCII
create or replace function dbscore.job_lock_class() returns integer
language sql immutable parallel safe
return 25698;

create or replace function dbscore.own_job(job_id integer) returns dbscore.job
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    job dbscore.job;
begin
    select * into job from dbscore.job j where j.job_id = own_job.job_id;
    if job.job_id is null then
        raise exception 'there is no job % of yours', job_id using errcode = 'ML001', hint = 'select * from dbscore.jobs shows those there are.';
    end if;
    if job.run_by <> current_user then
        raise exception 'job % belongs to %', job_id, job.run_by
        using errcode = 'ML010', hint = format('It reads and writes with the rights of the role that made it: set role %I.', job.run_by);
    end if;
    return job;
end
$function$;

-- the backends that work on a job
create or replace function dbscore.worker_pids(job_id integer) returns setof integer
language sql stable
set search_path = pg_catalog, pg_temp
as $function$
    select distinct l.pid from pg_locks l
    where l.locktype = 'advisory' and l.classid = dbscore.job_lock_class()::oid and l.objid = worker_pids.job_id::oid and l.objsubid = 2 and l.granted
      and l.mode = 'ShareLock' and l.database = (select d.oid from pg_database d where d.datname = current_database())
$function$;

create or replace function dbscore.job_workers(job_id integer) returns integer
language sql stable
set search_path = pg_catalog, pg_temp
return (select count(*)::integer from dbscore.worker_pids(job_id));

create or replace function dbscore.check_options(
    key text[], into_table text, source text, query text, mode text, incremental boolean, chunk_rows integer, workers integer,
    max_errors bigint, runs_on text
) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    problem text;
    hint text := '';
begin
    if (source is null) = (query is null) then
        problem := 'a job needs a source: a table or view, or a query, and not both';
    elsif key is null or cardinality(key) not between 1 and 8 or array_position(key, null) is not null
        or (select count(distinct k) from unnest(key) k) < cardinality(key)
    then
        problem := format('the key is %s', coalesce(quote_literal(key::text), 'NULL'));
        hint := 'Name one to eight different columns that together tell the rows apart.';
    elsif key && '{prediction,probabilities,version,job_id,reason,recorded_at}' then
        problem := format('the key %s has the name of a column of the results', key);
        hint := 'Rename it in a view or in the query.';
    elsif into_table is null or into_table = '' then
        problem := 'no result table is named';
    elsif mode not in ('create', 'append', 'replace', 'upsert') then
        problem := format('the mode is %L', mode);
        hint := 'It is append, replace or upsert; none of them where the result table is not there yet.';
    elsif incremental and mode = 'replace' then
        problem := 'a replaced table has no earlier predictions that an incremental job could leave out';
        hint := 'Use mode append with incremental.';
    elsif coalesce(chunk_rows, 1) not between 1 and 10000000 then
        problem := format('chunk_rows is %s', chunk_rows);
        hint := 'Between 1 and 10,000,000; some ten thousand are usual.';
    elsif workers is null or workers not between 1 and 256 then
        problem := format('workers is %s', coalesce(workers::text, 'NULL'));
        hint := 'Between 1 and 256; as many as the server has processors to spare.';
    elsif max_errors is null or max_errors < 0 then
        problem := format('max_errors is %s', coalesce(max_errors::text, 'NULL'));
        hint := 'How many rows may be set aside: 0 or more.';
    elsif runs_on is null or runs_on not in ('auto', 'server', 'client') then
        problem := format('a job runs on %s', coalesce(quote_literal(runs_on), 'NULL'));
        hint := 'It is auto, server or client.';
    end if;
    if problem is not null then
        raise exception '%', problem using errcode = 'ML012', hint = hint;
    end if;
end
$function$;

create or replace function dbscore.key_types(job dbscore.job, names text[], types text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    missing constant text := (select string_agg(k, ', ') from unnest(job.key_columns) k where k <> all (names));
    unfit text;
begin
    if missing is not null then
        raise exception 'the source has no column % for the key', missing
        using errcode = 'ML012', hint = format('Its columns: %s.', array_to_string(names[1:40], ', '));
    end if;
    unfit := (
        select string_agg(format('%s is of type %s', k, types[array_position(names, k)]), ', ') from unnest(job.key_columns) k
        join pg_type t on t.oid = to_regtype(regexp_replace(types[array_position(names, k)], '\(.*\)', ''))
        -- arrays of arrays have one size for all, and the bounds of ranges of keys are texts
        where (t.typcategory = 'A' and (job.source_kind <> 'table' or job.runs_on = 'server')) or (t.typcategory = 'C' and job.source_kind <> 'table')
            or t.typname in ('json', 'xml', 'point'));
    if unfit is not null then
        raise exception 'the key cannot tell rows apart: %', unfit
        using errcode = 'ML012', hint = 'Key the rows by a number, a text, a date or a uuid; in a view, by its text.';
    end if;
    return array(select types[array_position(names, k)] from unnest(job.key_columns) with ordinality as keys (k, i) order by i);
end
$function$;

-- how many rows PostgreSQL expects; to ask also refuses what cannot be cast, and a where clause that is none
create or replace function dbscore.planned_rows(job dbscore.job, signature jsonb, columns text[]) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    whole dbscore.job := job;
    statement text;
    checked text;
    plan json;
begin
    whole.incremental := false;
    statement := format('explain (format json) select %s %s',
        (select string_agg(format('(%s.%I)::%s', dbscore.source_alias(job), columns[i], f ->> 'type'), ', ' order by i)
         from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i)),
        dbscore.source_rows(whole, 'true'));
    whole.where_clause := null;
    checked := 'explain select ' || dbscore.source_rows(whole, format(E'case when %s\n then true end', job.where_clause));
    perform set_config('search_path', job.search_path, true);
    if job.where_clause is not null then
        execute checked;
    end if;
    execute statement into plan;
    return (plan -> 0 -> 'Plan' ->> 'Plan Rows')::double precision::bigint;
end
$function$;

-- 50,000 rows, or 64 MB of numbers; but some chunks for each worker, so that they end together
create or replace function dbscore.usual_chunk(signature jsonb, rows bigint, workers integer) returns integer
language sql immutable
set search_path = pg_catalog, pg_temp
return greatest(1, least(
    50000, greatest(5000, rows / (8 * workers)),
    (1 << 26) / (select sum(8 * (f ->> 'width')::integer) from jsonb_array_elements(signature -> 'features') f)))::integer;

-- makes or checks the tables that are written, and the job's row
create or replace function dbscore.insert_job(job dbscore.job, into_table text, signature jsonb) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    parts constant text[] := parse_ident(into_table);
    predicted constant text := (select o ->> 'type' from jsonb_array_elements(signature -> 'outputs') o where o ->> 'kind' = 'prediction');
    scored constant boolean := signature @> '{"outputs": [{"kind": "probabilities"}]}';
    keys constant text := (select string_agg(format('%I %s not null', k, job.key_types[i]), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i));
    results constant text := format('%s, prediction %s%s, version integer not null, job_id integer not null', keys, predicted,
        case when scored then ', probabilities double precision[]' else '' end);
    target regclass;
    namespace text;
    new_id integer;
begin
    if cardinality(parts) > 2 then
        raise exception 'the result table is %', quote_literal(into_table) using errcode = 'ML012', hint = 'Write name, or schema.name.';
    end if;
    perform set_config('search_path', job.search_path, true);
    target := pg_catalog.to_regclass(into_table);
    namespace := case when pg_catalog.cardinality(parts) = 2 then parts[1] else pg_catalog.current_schema() end;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    if target is null then
        if namespace is null then
            raise exception 'no schema of the search_path % is there for the result table %', job.search_path, into_table
            using errcode = 'ML012', hint = 'Write schema.name.';
        end if;
        job.mode := 'create';
        job.into_table := format('%I.%I', namespace, parts[cardinality(parts)]);
    else
        job.into_table := (select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = target);
        if job.mode = 'create' then
            raise exception 'the result table % is there already', job.into_table
            using errcode = 'ML012', hint = 'Say what shall become of it with a mode: append, replace or upsert; or name another table.';
        end if;
        perform dbscore.take_table(job);
        perform dbscore.check_target(job, target, job.key_columns || array['prediction', 'version', 'job_id'] || case when scored then array['probabilities'] else '{}' end);
    end if;
    if job.into_table = job.source then
        raise exception 'the result table % is the source', job.into_table using errcode = 'ML012', hint = 'Name another table.';
    end if;
    if target is null then
        -- made by an earlier job, and dropped since
        perform dbscore.take_table(job);
    end if;
    if job.max_errors > 0 then
        job.errors_table := format('%I.%I', (parse_ident(job.into_table))[1], left((parse_ident(job.into_table))[2], 56) || '_errors');
        perform dbscore.check_errors_table(job);
    end if;
    insert into dbscore.job (model, version, source_kind, source, where_clause, key_columns, key_types, into_table, errors_table, mode, incremental, primary_key,
                             runs_on, chunk_rows, workers, max_errors, search_path, rows_planned)
    values (job.model, job.version, job.source_kind, job.source, job.where_clause, job.key_columns, job.key_types, job.into_table, job.errors_table, job.mode,
            job.incremental, job.primary_key, job.runs_on, job.chunk_rows, job.workers, job.max_errors, job.search_path, job.rows_planned)
    returning job_id into new_id;
    if job.mode = 'create' then
        execute format('create table %s (%s)', job.into_table, results);
        execute format('comment on table %s is %L', job.into_table, format('Predictions of the model %s, made by dbscore jobs.', job.model));
    elsif job.mode = 'replace' then
        job.staging_table := dbscore.staging_name(job.into_table, new_id);
        execute format('create table %s (%s)', job.staging_table, results);
        update dbscore.job j set staging_table = job.staging_table where j.job_id = new_id;
    end if;
    update dbscore.job j set into_oid = to_regclass(job.into_table) where j.job_id = new_id;
    if job.errors_table is not null and to_regclass(job.errors_table) is null then
        execute format('create table %s (%s, reason text not null, version integer not null, job_id integer not null,'
                       ' recorded_at timestamptz not null default now())', job.errors_table, keys);
    end if;
    return new_id;
end
$function$;

create or replace function dbscore.create_job(
    reference text, key text[], into_table text, source text default null, query text default null, where_clause text default null,
    mode text default null, incremental boolean default false, chunk_rows integer default null, workers integer default 2,
    max_errors bigint default 0, runs_on text default 'auto', primary_key boolean default true, search_path text default pg_catalog.current_setting('search_path')
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    resolved record;
    signature jsonb;
    relation regclass;
    found record;
    columns text[];
    scorable boolean;
    job dbscore.job;
    whole dbscore.job;
begin
    perform dbscore.check_options(key, into_table, source, query, mode, incremental, chunk_rows, workers, max_errors, runs_on);
    select * into resolved from dbscore.resolve(reference);
    signature := dbscore.version_signature(resolved.model, resolved.version);
    scorable := dbscore.is_compiled(resolved.model, resolved.version)
        or to_regprocedure(format('dbscore_engine.%I(text, bytea, bytea, text[])', format('%s_v%s_frame', resolved.model, resolved.version))) is not null;
    if runs_on = 'server' and not scorable then
        raise exception 'this server cannot score %:% itself', resolved.model, resolved.version
        using errcode = 'ML009', hint = 'Let the client score: --where-to-run client, or auto.';
    end if;
    job.model := resolved.model;
    job.version := resolved.version;
    job.runs_on := case when runs_on <> 'auto' then runs_on when scorable then 'server' else 'client' end;
    job.where_clause := where_clause;
    job.key_columns := key;
    job.mode := coalesce(mode, 'create');
    job.incremental := coalesce(incremental, false);
    job.primary_key := coalesce(primary_key, true);
    job.workers := workers;
    job.max_errors := max_errors;
    job.search_path := search_path;
    if query is not null then
        job.source_kind := 'query';
        job.source := rtrim(query, E'; \n\t\r');
    else
        perform set_config('search_path', create_job.search_path, true);
        relation := pg_catalog.to_regclass(source);
        perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        if relation is null or (select c.relkind not in ('r', 'm', 'v', 'p', 'f') from pg_class c where c.oid = relation) then
            raise exception 'there is no table or view %', quote_literal(source)
            using errcode = 'ML001', hint = 'Name one as SQL does, with its schema where it needs one.';
        end if;
        job.source_kind := case when dbscore.is_plain_table(relation) then 'table' else 'view' end;
        job.source := (select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = relation);
    end if;
    select * into found from dbscore.source_columns(job);
    columns := dbscore.feature_columns(signature, found.names, found.types, coalesce(source, 'the query'));
    job.key_types := dbscore.key_types(job, found.names, found.types);
    whole := job;
    whole.where_clause := null;
    job.rows_planned := dbscore.planned_rows(job, signature, columns);
    job.chunk_rows := coalesce(chunk_rows, dbscore.usual_chunk(signature, dbscore.planned_rows(whole, signature, columns), workers));
    job.job_id := dbscore.insert_job(job, into_table, signature);
    if job.source_kind = 'table' then
        perform dbscore.plan_blocks(job.job_id);
        perform dbscore.check_keys(dbscore.own_job(job.job_id));
    else
        perform dbscore.plan_keys(job.job_id);
    end if;
    return job.job_id;
end
$function$;

comment on function dbscore.create_job(text, text[], text, text, text, text, text, boolean, integer, integer, bigint, text, boolean, text) is
    'Plans a job: checks everything, makes the tables; nothing is scored yet.';
