-- sql/044_progress.sql: jobs as those who run them, and DBAs, see them.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0002, sql/040_jobs.sql
--
-- A role sees its own jobs; members of the owner see all.
--
-- dbscore.jobs           one row per job: what it was told, and its chunks counted
-- dbscore.job_progress   how far it is, how fast, who works on it; status interrupted: nobody does

create or replace view dbscore.jobs with (security_barrier) as
select
    j.job_id, j.model, j.version, j.source_kind, j.source, j.source_filenode, j.start_xid, j.where_clause, j.key_columns, j.key_types,
    j.into_table, j.errors_table, j.staging_table, j.mode, j.incremental, j.replanned, j.primary_key, j.runs_on, j.chunk_rows, j.workers,
    j.max_errors, j.search_path, j.status, j.rows_planned, j.errors, j.error, j.run_by, j.created_at, j.started_at, j.finished_at,
    c.chunks, c.chunks_done, c.chunks_failed, c.rows_done
from dbscore.job j
cross join lateral (
    select count(*) as chunks, count(*) filter (where c.status = 'done') as chunks_done, count(*) filter (where c.status = 'failed') as chunks_failed,
        coalesce(sum(c.rows) filter (where c.status = 'done'), 0)::bigint as rows_done
    from dbscore.chunk c where c.job_id = j.job_id
) as c
where j.run_by = current_user or pg_has_role(current_user, (select nspowner from pg_namespace where nspname = 'dbscore'), 'member');

create or replace view dbscore.job_progress with (security_barrier) as
select
    j.job_id, j.model, j.version, case when j.source_kind = 'query' then '(query)' else j.source end as source, j.into_table,
    case when j.status = 'running' and w.workers = 0 then 'interrupted' else j.status end as status,
    j.runs_on, w.workers, j.chunks, j.chunks_done, j.chunks_failed, j.rows_planned, j.rows_done, j.errors,
    r.rows_per_second,
    case when j.status = 'running' and w.workers > 0 then greatest(0, j.rows_planned - j.rows_done) / nullif(r.rows_per_second, 0) end as seconds_left,
    j.run_by, j.started_at, j.finished_at, j.error
from dbscore.jobs j
cross join lateral (select dbscore.job_workers(j.job_id) as workers) as w
cross join lateral (
    -- of this start: what was done before a pause says nothing
    select (sum(c.rows) / nullif(extract(epoch from max(c.finished_at) - j.started_at), 0))::double precision as rows_per_second
    from dbscore.chunk c where c.job_id = j.job_id and c.status = 'done' and c.finished_at >= j.started_at
) as r;

comment on view dbscore.jobs is 'Jobs of the current role; all of them for the owner.';
comment on view dbscore.job_progress is 'How far jobs are, and who works on them; status interrupted: nobody does.';
