-- sql/041_job_plan.sql: how a job's rows are cut into chunks.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/040_jobs.sql
--
-- A chunk of a table is a range of its blocks, and of their rows those that were there when the job was planned: such
-- a row has one place until it is updated or deleted, so it is scored once. What was inserted or updated since is the
-- last chunk, seen by one snapshot, but for keys that have a prediction of the job already. A chunk of anything else
-- is a range of keys.
--
-- dbscore.plan_blocks(job_id)   of a table
-- dbscore.plan_keys(job_id)     of a view or a query
-- dbscore.check_keys(job)       ML012 where the key does not tell the rows apart, or is NULL

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
