-- sql/039_job_target.sql: where a job writes: its result table, the table that one is exchanged for, the rows set aside; and
-- which rows are not there yet.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/038_job_source.sql
--
-- dbscore.still_to_do(job) -> text            the condition that a row has no prediction of the job yet
-- dbscore.source_rows(job, condition) -> text  from and where of those rows of the source that a condition picks
-- dbscore.conflict_columns(job) -> text[]     the columns that mode upsert tells rows apart by
-- dbscore.take_table(job)                     ML007 where another job is not done with the result table
-- errors: ML007 another job has the table; ML010 somebody else's table; ML012 the table does not fit

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
