-- sql/040_jobs.sql: planning a job: whole-table scoring, its source, its result table, its chunks.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0002, sql/020_registry.sql, sql/035_batch.sql
--
-- Everything about jobs runs with the rights of its caller: the source is read and the results are written with them.
-- Names in the source and the where clause are looked up in the search_path that the job was made with. Row level
-- security on dbscore.job and dbscore.chunk lets a role see and change its own jobs only; only the role that made a job
-- works on it, since its texts run with the worker's rights.
--
-- A chunk of a table is a range of its blocks, and of their rows those that were there when the job was planned: such
-- a row has one place until it is updated or deleted, so it is scored once. What was inserted or updated since is the
-- last chunk, seen by one snapshot, but for keys that have a prediction of the job already. A chunk of anything else
-- is a range of keys.
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

-- --- the source ---

-- the rows of a plain table have a place, by which they can be told apart; those of anything else have a key only
create or replace function dbscore.is_plain_table(relation regclass) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select c.relkind in ('r', 'm') and a.amname = 'heap' and not exists (select from pg_inherits i where i.inhparent = c.oid)
    from pg_class c left join pg_am a on a.oid = c.relam where c.oid = relation
);

create or replace function dbscore.relation_columns(relation regclass, out names text[], out types text[])
language sql stable
set search_path = pg_catalog, pg_temp
as $function$
    select array_agg(a.attname::text order by a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum)
    from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$function$;

-- the source's columns as they are now; a query's by way of a view, which also refuses what is no single query
create or replace function dbscore.source_columns(job dbscore.job, out names text[], out types text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    if job.source_kind <> 'query' then
        select c.names, c.types into names, types from dbscore.relation_columns(job.source::regclass) c;
        return;
    end if;
    perform set_config('search_path', job.search_path, true);
    execute pg_catalog.format(E'create temporary view dbscore_job_source as %s\n', job.source);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    select c.names, c.types into names, types from dbscore.relation_columns('pg_temp.dbscore_job_source'::regclass) c;
    drop view pg_temp.dbscore_job_source;
end
$function$;

create or replace function dbscore.source_alias(job dbscore.job) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case when job.source_kind = 'query' then 'source_rows' else quote_ident((parse_ident(job.source))[2]) end;

-- where the chunks are written: mode replace keeps them apart until all are there
create or replace function dbscore.written_table(job dbscore.job) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return coalesce(job.staging_table, job.into_table);

-- a condition: a table, of predictions or of rows set aside, has not the row's key
create or replace function dbscore.not_written(job dbscore.job, into_table text, of_what text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return (
    select format('not exists (select from %1$s as %2$s where %3$s and %2$s.%4$s)',
        into_table, alias,
        (select string_agg(format('%1$s.%2$I = %3$s.%2$I', alias, k, dbscore.source_alias(job)), ' and ') from unnest(job.key_columns) k),
        of_what)
    -- whatever the source is called
    from (values (case dbscore.source_alias(job) when 'written' then 'dbscore_written' else 'written' end)) as aliases (alias));

-- a condition: the job has neither scored the row's key nor set it aside
create or replace function dbscore.still_to_do(job dbscore.job) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return concat_ws(' and ',
    dbscore.not_written(job, dbscore.written_table(job), format('job_id = %s', job.job_id)),
    case when job.errors_table is not null then dbscore.not_written(job, job.errors_table, format('job_id = %s', job.job_id)) end);

-- the rows of a source that a condition selects: from ... where ...
create or replace function dbscore.source_rows(job dbscore.job, condition text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format('from %s as %s where %s%s%s%s',
    -- a table that others inherit from by now has places of rows, and they have their own
    case job.source_kind when 'query' then format(E'(%s\n)', job.source) when 'table' then 'only ' || job.source else job.source end,
    dbscore.source_alias(job),
    condition,
    case when job.where_clause is null then '' else format(E' and (%s\n)', job.where_clause) end,
    case when job.incremental then ' and ' || dbscore.not_written(job, dbscore.written_table(job), format('version = %s', job.version)) else '' end,
    case when job.replanned then ' and ' || dbscore.still_to_do(job) else '' end);

-- the columns that hold a version's features, in their order; ML002 where one is not there or does not fit
create or replace function dbscore.feature_columns(signature jsonb, names text[], types text[], source text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    feature jsonb;
    name text;
    type text;
    columns text[] := '{}';
    missing text[] := '{}';
begin
    for feature in select f from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i) order by i
    loop
        name := case when feature ->> 'source' = any (names) then feature ->> 'source' else feature ->> 'name' end;
        type := regexp_replace(types[array_position(names, name)], '\(.*\)', '');
        if type is null then
            missing := missing || name;
        elsif feature ->> 'type' <> 'text'
            and (type in ('text', 'character varying', 'character', 'name') or type ~ '^(date|time|interval)'
                 or (feature ->> 'type' in ('smallint', 'integer', 'bigint') and type not in ('smallint', 'integer', 'bigint', 'boolean')))
        then
            raise exception 'column % of % is of type %, the feature % of type %', name, source, type, feature ->> 'name', feature ->> 'type'
            using errcode = 'ML002', hint = 'Cast it in a view or in the query.';
        end if;
        columns := columns || name;
    end loop;
    if missing <> '{}' then
        raise exception '% has no column for the feature%: %', source, case when cardinality(missing) > 1 then 's' else '' end, array_to_string(missing, ', ')
        using errcode = 'ML002', hint = 'Name a source that has a column for each feature, by its name.';
    end if;
    return columns;
end
$function$;

-- the source's columns that hold the features of a job's version
create or replace function dbscore.job_columns(job dbscore.job, signature jsonb) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant record := dbscore.source_columns(job);
begin
    return dbscore.feature_columns(signature, found.names, found.types, job.source);
end
$function$;

-- --- checking ---

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

-- --- the result table ---

-- the columns of the unique index that an upsert goes by: the key's, and perhaps the version
create or replace function dbscore.conflict_columns(job dbscore.job) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    columns constant text[] := (
        select found.names from (
            select array(select a.attname::text from pg_attribute a where a.attrelid = i.indrelid and a.attnum = any (i.indkey[0:i.indnkeyatts - 1])) as names
            from pg_index i
            where i.indrelid = job.into_table::regclass and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
        ) as found
        where found.names @> job.key_columns and found.names <@ (job.key_columns || array['version'])
        order by cardinality(found.names) limit 1);
begin
    if columns is null then
        raise exception 'the result table % has no unique index on the key', job.into_table
        using errcode = 'ML012', hint = format('Upsert goes by one: create unique index on %s (%s).', job.into_table,
                                               (select string_agg(quote_ident(k), ', ') from unnest(job.key_columns) k));
    end if;
    return columns;
end
$function$;

-- an existing table must have the columns of the results, and hold this model's only
create or replace function dbscore.check_target(job dbscore.job, target regclass, results text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    names constant text[] := (select c.names from dbscore.relation_columns(target) c);
    missing constant text := (select string_agg(r, ', ') from unnest(results) r where r <> all (names));
    rights constant text[] := '{select,insert}'::text[] || case job.mode when 'upsert' then '{update}' when 'replace' then '{truncate}' else '{}'::text[] end;
    unfilled constant text := (
        select string_agg(a.attname, ', ') from pg_attribute a
        where a.attrelid = target and a.attnum > 0 and not a.attisdropped and a.attnotnull and not a.atthasdef and a.attidentity = '' and a.attname <> all (results));
    referring constant text := (select string_agg(c.conrelid::regclass::text, ', ') from pg_constraint c where c.contype = 'f' and c.confrelid = target);
    denied constant text := (select string_agg(r, ', ') from unnest(rights) r where not has_table_privilege(target, r));
    other constant text := (select j.model from dbscore.job j where j.into_table = job.into_table and j.model <> job.model and j.status <> 'abandoned' and j.run_by = current_user limit 1);
begin
    if missing is not null then
        raise exception 'the result table % has no column %', job.into_table, missing
        using errcode = 'ML012', hint = format('Name another table; results have the columns %s.', array_to_string(results, ', '));
    elsif unfilled is not null then
        raise exception 'the result table % wants a value for %, and a job has none', job.into_table, unfilled
        using errcode = 'ML012', hint = 'Give the column a default, or name another table.';
    elsif job.mode = 'replace' and (referring is not null or (select c.relkind not in ('r', 'p') from pg_class c where c.oid = target)) then
        raise exception 'the result table % cannot be replaced: %', job.into_table, coalesce('foreign keys refer to it, of ' || referring, 'it is no table')
        using errcode = 'ML012', hint = 'Use mode upsert, or name another table.';
    elsif denied is not null then
        raise exception 'the role % lacks % on the result table %', current_user, denied, job.into_table
        using errcode = 'ML010', hint = format('grant %s on %s to %I', denied, job.into_table, current_user);
    elsif other is not null then
        raise exception 'the result table % holds predictions of the model %', job.into_table, other
        using errcode = 'ML012', hint = 'Name another table: one holds the predictions of one model, of any of its versions.';
    end if;
    if job.mode = 'upsert' then
        perform dbscore.conflict_columns(job);
    end if;
end
$function$;

-- a table of quarantined rows that is there already must have the columns, and be open to the role
create or replace function dbscore.check_errors_table(job dbscore.job) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    target constant regclass := to_regclass(job.errors_table);
    names constant text[] := (select c.names from dbscore.relation_columns(target) c);
    missing constant text := (select string_agg(w, ', ') from unnest(job.key_columns || array['reason', 'version', 'job_id']) w where w <> all (names));
begin
    if missing is not null then
        raise exception 'the table % for rows that cannot be scored has no column %', job.errors_table, missing
        using errcode = 'ML012', hint = 'Rename or drop it, or name another result table.';
    elsif not exists (
        select from pg_class c where c.oid = target
            and c.relowner in (current_user::regrole, (select i.relowner from pg_class i where i.oid = to_regclass(job.into_table)), (select n.nspowner from pg_namespace n where n.nspname = 'dbscore')))
        and target is not null
    then
        raise exception 'the table % for rows that cannot be scored belongs to another role', job.errors_table
        using errcode = 'ML010', hint = 'What is written there would run its triggers: rename or drop it, or name another result table.';
    elsif target is not null and not (has_table_privilege(target, 'insert') and has_table_privilege(target, 'select')) then
        raise exception 'the role % lacks select or insert on the table % for rows that cannot be scored', current_user, job.errors_table
        using errcode = 'ML010', hint = format('grant select, insert on %s to %I', job.errors_table, current_user);
    end if;
end
$function$;

-- what is not done with a result table, whoever runs it: row level security would hide the jobs of others
create or replace function dbscore.jobs_into(into_table text) returns table (job_id integer, mode text, status text, is_own boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $function$
    select j.job_id, j.mode, j.status, j.run_by = coalesce(nullif(current_setting('role'), 'none'), session_user)
    from dbscore.job j join pg_roles r on r.rolname = j.run_by
    where j.into_table = jobs_into.into_table and j.status not in ('done', 'abandoned')
      -- a role that may not write there stands in nobody's way
      and case when to_regclass(jobs_into.into_table) is not null then has_table_privilege(r.oid, to_regclass(jobs_into.into_table), 'insert')
          else exists (select from pg_namespace n where n.nspname = (parse_ident(jobs_into.into_table))[1] and has_schema_privilege(r.oid, n.oid, 'create')) end
$function$;

-- mode replace: where a job's predictions wait
create or replace function dbscore.staging_name(into_table text, job_id integer) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format('%I.%I', (parse_ident(into_table))[1], format('%s_job_%s', left((parse_ident(into_table))[2], 45), job_id));

-- two jobs may add to one table; but not while one has still to make its primary key, or will replace all of it
create or replace function dbscore.take_table(job dbscore.job) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    other record;
begin
    perform pg_advisory_xact_lock(dbscore.job_lock_class() + 1, hashtext(job.into_table));
    for other in
        select * from dbscore.jobs_into(job.into_table) j where j.mode in ('create', 'replace') or job.mode in ('create', 'replace')
    loop
        if not other.is_own or (other.mode in ('create', 'replace') and job.mode in ('append', 'upsert')) or dbscore.job_workers(other.job_id) > 0 then
            raise exception 'job % is not done with the result table %: it is %', other.job_id, job.into_table, other.status
            using errcode = 'ML007',
                  hint = format('Resume it (dbscore jobs resume %1$s); or cancel it (dbscore jobs cancel %1$s), and score with mode replace, as the role that made it.', other.job_id);
        end if;
        update dbscore.job j set status = 'abandoned', error = 'another job made or replaced the result table', finished_at = clock_timestamp()
        where j.job_id = other.job_id;
        execute format('drop table if exists %s', dbscore.staging_name(job.into_table, other.job_id));
    end loop;
end
$function$;

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

-- --- the chunks ---

create or replace function dbscore.refuse_keys(job dbscore.job, problem text, examples text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
    raise exception 'the key (%) of the source is %', array_to_string(job.key_columns, ', '), problem || coalesce(': ' || examples, '')
    using errcode = 'ML012', hint = 'Name columns that together tell the rows apart and are never NULL; nothing was scored.';
end
$function$;

-- the rows of a table: whether its indexes prove that the key is one, else its rows are looked at
create or replace function dbscore.check_keys(job dbscore.job) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    relation constant regclass := job.source::regclass;
    numbers constant smallint[] := array(select a.attnum from pg_attribute a where a.attrelid = relation and a.attname = any (job.key_columns));
    never_null constant boolean := (select bool_and(a.attnotnull) from pg_attribute a where a.attrelid = relation and a.attnum = any (numbers));
    is_unique constant boolean := exists (
        select from pg_index i where i.indrelid = relation and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
            and i.indkey[0:i.indnkeyatts - 1]::smallint[] <@ numbers);
    columns constant text := (select string_agg(format('%s.%I', dbscore.source_alias(job), k), ', ') from unnest(job.key_columns) k);
    nulls constant text := format('select count(*) %s', dbscore.source_rows(job, format('(%s)',
        (select string_agg(format('%s.%I is null', dbscore.source_alias(job), k), ' or ') from unnest(job.key_columns) k))));
    doubles constant text := format(
        'select pg_catalog.string_agg(found.k, ''; '') from (select pg_catalog.format(''%%s (%%s times)'', pg_catalog.concat_ws('', '', %1$s), count(*))'
        ' %2$s group by %1$s having count(*) > 1 limit 5) as found (k)', columns, dbscore.source_rows(job, 'true'));
    counted bigint;
    examples text;
begin
    perform set_config('search_path', job.search_path, true);
    if not never_null then
        execute nulls into counted;
        if counted > 0 then
            perform dbscore.refuse_keys(job, 'NULL', pg_catalog.format('%s rows', counted));
        end if;
    end if;
    if not is_unique then
        execute doubles into examples;
        if examples is not null then
            perform dbscore.refuse_keys(job, 'not unique', examples);
        end if;
    end if;
end
$function$;

-- chunks of a table: ranges of blocks, and last what has changed meanwhile
create or replace function dbscore.plan_blocks(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
    before constant integer := coalesce((select max(c.number) from dbscore.chunk c where c.job_id = job.job_id), 0);
    plan json;
    blocks bigint;
    step bigint;
begin
    -- whoever reads a table holds it: nobody rewrites it before this transaction ends
    execute format('select from %s limit 0', job.source);
    -- first the transactions, then the size: what was there before the first is within the second
    update dbscore.job j set start_xid = pg_snapshot_xmin(pg_current_snapshot())::xid::text, source_filenode = pg_relation_filenode(job.source::regclass)
    where j.job_id = job.job_id;
    blocks := pg_relation_size(job.source::regclass) / current_setting('block_size')::bigint;
    execute format('explain (format json) select from %s', job.source) into plan;
    step := greatest(1, ceil(job.chunk_rows * blocks / greatest(1, (plan -> 0 -> 'Plan' ->> 'Plan Rows')::numeric)));
    insert into dbscore.chunk (job_id, number, lower_block, upper_block)
    select job.job_id, before + i, lower_block, least(blocks, lower_block + step)
    from generate_series(0, blocks - 1, step) with ordinality as pieces (lower_block, i);
    insert into dbscore.chunk (job_id, number)
    select job.job_id, greatest(before, coalesce(max(c.number), 0)) + 1 from dbscore.chunk c where c.job_id = job.job_id;
end
$function$;

-- chunks of everything else: ranges of keys
create or replace function dbscore.plan_keys(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
    alias constant text := dbscore.source_alias(job);
    keys constant text := (select string_agg(format('%s.%I', alias, k), ', ') from unnest(job.key_columns) k);
    statement constant text := format(
        'select n, twice, hole, last, bounds from ('
        'select row_number() over w as n, pg_catalog.lead(1) over w is null as last, (%1$s) = (%2$s) as twice, (%3$s) as hole, array[%4$s]::text[] as bounds '
        '%5$s window w as (order by %1$s)) as ordered where n %% %6$s = 0 or twice or hole or last order by n',
        keys,
        (select string_agg(format('pg_catalog.lag(%s.%I) over w', alias, k), ', ') from unnest(job.key_columns) k),
        (select string_agg(format('%s.%I is null', alias, k), ' or ') from unnest(job.key_columns) k),
        -- as JSON writes it: the same whatever the session's DateStyle and time zone
        (select string_agg(format('pg_catalog.to_jsonb(%s.%I) #>> %L', alias, k, '{}'), ', ') from unnest(job.key_columns) k),
        dbscore.source_rows(job, 'true'),
        job.chunk_rows);
    found record;
    lower_key text[];
    counted bigint := 0;
    number integer := 0;
begin
    perform set_config('search_path', job.search_path, true);
    for found in execute statement
    loop
        if found.hole then
            perform dbscore.refuse_keys(job, 'NULL', null);
        elsif found.twice then
            perform dbscore.refuse_keys(job, 'not unique', pg_catalog.array_to_string(found.bounds, ', '));
        end if;
        counted := found.n;
        number := number + 1;
        insert into dbscore.chunk (job_id, number, lower_key, upper_key)
        values (job.job_id, number, lower_key, case when not found.last then found.bounds end);
        lower_key := found.bounds;
    end loop;
    update dbscore.job j set rows_planned = counted where j.job_id = job.job_id;
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
