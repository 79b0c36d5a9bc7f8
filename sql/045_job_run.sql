-- sql/045_job_run.sql: a job from its start to its end: workers come, chunks fail and are tried again, all of it is cancelled.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/042_chunks.sql
--
-- dbscore.start_job(job_id)                   lets workers go on; marks this connection as one of them
-- dbscore.finish_job(job_id) -> status        when all chunks are done: the primary key, or the swap of mode replace
-- dbscore.retry_job(job_id) -> integer        plans failed chunks again; returns how many
-- call dbscore.cancel_job(job_id)             stops the workers; the job can be resumed
-- call dbscore.score_table(reference, source, key, into_table, ...)  all of it in one session, a transaction a chunk
-- call dbscore.resume_job(job_id)             goes on with a job, in one session
-- errors: ML001 no such job; ML010 somebody else's; ML012 what a job fails for

create or replace function dbscore.open_job(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
begin
    if job.status in ('done', 'abandoned') then
        raise exception 'job % is %', job_id, job.status
        using errcode = 'ML012', hint = coalesce(job.error, 'Score again for a new job; what is new only, with incremental.');
    end if;
    perform dbscore.version_signature(job.model, job.version);
    update dbscore.job j set status = 'running', error = null, finished_at = null, started_at = clock_timestamp()
    where j.job_id = job.job_id and j.status not in ('done', 'abandoned') and (j.status <> 'running' or dbscore.job_workers(j.job_id) <= 1);
    if exists (select from dbscore.job j where j.job_id = job.job_id and j.status in ('done', 'abandoned')) then
        raise exception 'job % has just been ended by another session', job_id using errcode = 'ML012', hint = 'See dbscore.jobs.';
    end if;
end
$function$;

create or replace function dbscore.start_job(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    -- held as long as the connection is: it tells who works on the job; before the job's row, which others want too
    if not pg_try_advisory_lock_shared(dbscore.job_lock_class(), job_id) then
        raise exception 'somebody holds the advisory lock (%, %) of job %', dbscore.job_lock_class(), job_id, job_id
        using errcode = 'ML007', hint = 'See pg_locks: no dbscore takes it exclusively.';
    end if;
    perform dbscore.open_job(job_id);
end
$function$;

create or replace function dbscore.finish_job(job_id integer) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job dbscore.job;
    keys text;
    names text;
begin
    perform from dbscore.job j where j.job_id = finish_job.job_id for update;
    job := dbscore.own_job(job_id);
    if job.status <> 'running' then
        return job.status;
    elsif exists (select from dbscore.chunk c where c.job_id = job.job_id and c.status = 'failed') then
        update dbscore.job j set status = 'failed', finished_at = clock_timestamp(),
            error = (select c.error from dbscore.chunk c where c.job_id = job.job_id and c.status = 'failed' order by c.number limit 1)
        where j.job_id = job.job_id;
        return 'failed';
    elsif exists (select from dbscore.chunk c where c.job_id = job.job_id and c.status <> 'done') then
        return job.status;
    end if;
    perform dbscore.refuse_lost_results(job);
    if job.staging_table is not null then
        names := (select string_agg(quote_ident(n), ', ') from unnest((select c.names from dbscore.relation_columns(job.staging_table::regclass) c)) n);
        execute format('truncate table %s', job.into_table);
        execute format('insert into %s (%s) select %s from %s', job.into_table, names, names, job.staging_table);
        execute format('drop table %s', job.staging_table);
        update dbscore.job j set staging_table = null where j.job_id = job.job_id;
    end if;
    if job.primary_key and not exists (select from pg_index i where i.indrelid = job.into_table::regclass and i.indisprimary)
        and exists (select from dbscore.job j where j.into_table = job.into_table and j.mode = 'create' and j.status <> 'done')
    then
        -- after the rows: sorted once, and proof that no key has two predictions of a version
        keys := (select string_agg(quote_ident(k), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i));
        execute format('alter table %s add primary key (%s, version)', job.into_table, keys);
    end if;
    if job.mode = 'replace' and job.errors_table is not null then
        execute format('delete from %s where job_id <> %s', job.errors_table, job.job_id);
    end if;
    update dbscore.job j set status = 'done', finished_at = clock_timestamp() where j.job_id = job.job_id;
    return 'done';
end
$function$;

create or replace function dbscore.retry_job(job_id integer) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job dbscore.job;
    failed integer;
begin
    perform from dbscore.job j where j.job_id = retry_job.job_id for update;
    job := dbscore.own_job(job_id);
    if job.status in ('done', 'abandoned') then
        raise exception 'job % is %', job_id, job.status using errcode = 'ML012', hint = coalesce(job.error, 'There is nothing to try again.');
    end if;
    update dbscore.chunk c set status = 'planned', sqlstate = null, error = null where c.job_id = job.job_id and c.status = 'failed';
    get diagnostics failed = row_count;
    if job.source_kind = 'table' and pg_relation_filenode(job.source::regclass) <> job.source_filenode then
        -- no row is where it was: what has no prediction yet is planned anew
        update dbscore.job j set replanned = true where j.job_id = job.job_id;
        delete from dbscore.chunk c where c.job_id = job.job_id and c.status = 'planned';
        perform dbscore.plan_blocks(job.job_id);
    end if;
    return failed;
end
$function$;

create or replace function dbscore.mark_cancelled(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    status constant text := (select j.status from dbscore.job j where j.job_id = mark_cancelled.job_id);
begin
    if status is null then
        raise exception 'there is no job % of yours', job_id using errcode = 'ML001', hint = 'select * from dbscore.jobs shows those there are.';
    elsif status not in ('planned', 'running', 'cancelled') then
        raise exception 'job % is %, and cannot be cancelled', job_id, status using errcode = 'ML012';
    end if;
    update dbscore.job j set status = 'cancelled', finished_at = clock_timestamp() where j.job_id = mark_cancelled.job_id and j.status in ('planned', 'running');
end
$function$;

create or replace function dbscore.cancel_workers(job_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    perform pg_cancel_backend(w.pid) from dbscore.worker_pids(job_id) as w (pid) join pg_stat_activity a on a.pid = w.pid
    where w.pid <> pg_backend_pid() and pg_has_role(current_user, a.usesysid, 'usage');
end
$function$;

-- a procedure that commits has no settings of its own; what it calls has
create or replace procedure dbscore.cancel_job(job_id integer)
language plpgsql
as $procedure$
begin
    -- a statement that has counted errors holds the job's row: it is stopped first, and the next one after the commit
    perform dbscore.cancel_workers(job_id);
    perform dbscore.mark_cancelled(job_id);
    commit;
    perform dbscore.cancel_workers(job_id);
end
$procedure$;

create or replace function dbscore.refuse_unfinished(job_id integer) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
begin
    if job.status <> 'done' then
        raise exception 'job % is %: %', job_id, job.status, coalesce(job.error, 'others still work on it')
        using errcode = 'ML012',
              hint = format('What was scored is kept. Go on with call dbscore.resume_job(%1$s), after select dbscore.retry_job(%1$s) where it failed.', job_id);
    end if;
end
$function$;

create or replace procedure dbscore.resume_job(job_id integer)
language plpgsql
as $procedure$
declare
    piece record;
begin
    perform dbscore.open_job(job_id);
    commit;
    loop
        select * into piece from dbscore.score_chunk(job_id);
        commit;
        exit when piece.chunk is null or piece.failure is not null;
    end loop;
    perform dbscore.finish_job(job_id);
    commit;
    perform dbscore.refuse_unfinished(job_id);
end
$procedure$;

create or replace procedure dbscore.score_table(
    reference text, source regclass, key text, into_table text, where_clause text default null, chunk_rows integer default null,
    mode text default null, incremental boolean default false, max_errors bigint default 0, primary_key boolean default true,
    inout job_id integer default null
)
language plpgsql
as $procedure$
begin
    job_id := dbscore.create_job(
        reference, pg_catalog.regexp_split_to_array(pg_catalog.btrim(key), '\s*,\s*'), into_table, source => source::pg_catalog.text, where_clause => where_clause,
        mode => mode, incremental => incremental, chunk_rows => chunk_rows, workers => 1, max_errors => max_errors, runs_on => 'server', primary_key => primary_key);
    raise notice 'job %', job_id;
    commit;
    call dbscore.resume_job(job_id);
end
$procedure$;

comment on procedure dbscore.score_table(text, regclass, text, text, text, integer, text, boolean, bigint, boolean, integer) is
    'Scores a table or view in this session, a transaction a chunk: call dbscore.score_table(''churn'', ''customers'', key => ''id'', into_table => ''churn_scores'').';
comment on procedure dbscore.resume_job(integer) is 'Goes on with a job in this session.';
comment on procedure dbscore.cancel_job(integer) is 'Stops a job''s workers; it can be resumed.';
comment on function dbscore.retry_job(integer) is 'Plans a job''s failed chunks again; returns how many.';
comment on function dbscore.start_job(integer) is 'Lets workers go on with a job, and marks this connection as one of them.';
comment on function dbscore.finish_job(integer) is 'Ends a job whose chunks are done; returns its status.';
