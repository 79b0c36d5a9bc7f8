-- sql/042_chunks.sql: working on a job's chunks.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/041_job_plan.sql
--
-- dbscore.score_chunk(job_id) -> chunk, rows, errors, failure
--                                             scores one chunk on the server, in this transaction; chunk is NULL where
--                                             there is none left. With a failure, the chunk and the job have failed
-- dbscore.claim_chunk(job_id) -> chunk, statement
--                                             takes one chunk, for the client to score in this transaction; statement
--                                             packs its rows, and is NULL where the chunk and the job have failed
-- dbscore.finish_chunk(job_id, chunk, rows, errors, first_errors)    it did, in this transaction
-- dbscore.fail_chunk(job_id, chunk, sqlstate, message)               it could not
-- errors: ML001 no such job; ML010 somebody else's; ML012 what a job fails for

-- which rows are a chunk's
create or replace function dbscore.chunk_condition(job dbscore.job, piece dbscore.chunk) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    alias constant text := dbscore.source_alias(job);
    keys constant text := (select string_agg(format('%s.%I', alias, k), ', ') from unnest(job.key_columns) k);
    lower_key constant text := case when job.source_kind <> 'table' or piece.lower_block is null then (
        select string_agg(format('%L::%s', v, job.key_types[i]), ', ' order by i) from unnest(piece.lower_key) with ordinality as bounds (v, i)) end;
    upper_key constant text := (
        select string_agg(format('%L::%s', v, job.key_types[i]), ', ' order by i) from unnest(piece.upper_key) with ordinality as bounds (v, i));
begin
    if job.source_kind <> 'table' then
        return concat_ws(' and ',
            case when lower_key is not null then format('(%s) > (%s)', keys, lower_key) end,
            case when upper_key is not null then format('(%s) <= (%s)', keys, upper_key) end, 'true');
    elsif piece.lower_block is null then
        -- and where a part of it is to be found: a range of keys
        return concat_ws(' and ',
            format('pg_catalog.age(%1$s.xmin) <= (select pg_catalog.age(%2$L::pg_catalog.xid))', alias, job.start_xid),
            dbscore.still_to_do(job),
            case when lower_key is not null then format('(%s) > (%s)', keys, lower_key) end,
            case when upper_key is not null then format('(%s) <= (%s)', keys, upper_key) end);
    elsif piece.lower_key is not null then
        -- one row, by its place
        return format('%s.ctid = %L::pg_catalog.tid', alias, piece.lower_key[1]);
    end if;
    return format('%1$s.ctid >= ''(%2$s,0)''::pg_catalog.tid and %1$s.ctid < ''(%3$s,0)''::pg_catalog.tid'
                  ' and pg_catalog.age(%1$s.xmin) > (select pg_catalog.age(%4$L::pg_catalog.xid))',
                  alias, piece.lower_block, piece.upper_block, job.start_xid);
end
$function$;

-- takes one chunk that is still to be done; the rows that changed come last
create or replace function dbscore.take_chunk(job dbscore.job) returns dbscore.chunk
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    piece dbscore.chunk;
begin
    -- the row is locked as it is now: whoever has an older snapshot is told
    perform from dbscore.job j where j.job_id = job.job_id and j.status = 'running' for key share;
    if found then
        select * into piece from dbscore.chunk c
        where c.job_id = job.job_id and c.status = 'planned'
          and (job.source_kind <> 'table' or c.lower_block is not null
               or not exists (select from dbscore.chunk o where o.job_id = job.job_id and o.number <> c.number and o.status <> 'done'))
        order by c.number limit 1 for update skip locked;
    end if;
    if piece.number is not null then
        if not pg_try_advisory_xact_lock_shared(dbscore.job_lock_class(), job.job_id) then
            raise exception 'somebody holds the advisory lock of job %', job.job_id using errcode = 'lock_not_available';
        end if;
        update dbscore.chunk c set started_at = clock_timestamp(), attempts = c.attempts + 1 where c.job_id = piece.job_id and c.number = piece.number;
    end if;
    return piece;
end
$function$;

-- raises where what the job wrote is gone: its table was dropped, and another has its name
create or replace function dbscore.refuse_lost_results(job dbscore.job) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if to_regclass(job.into_table) is distinct from job.into_oid::regclass and job.into_oid is not null then
        raise exception 'the result table % is not the one that job % writes to: that was dropped', job.into_table, job.job_id
        using errcode = 'ML012', hint = 'What the job had scored is gone with it. Score again, for a new job.';
    end if;
end
$function$;

-- raises where the table's rows are not where they were planned; from here on they stay there until the chunk is done
create or replace function dbscore.refuse_rewritten(job dbscore.job, piece dbscore.chunk) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    if job.source_kind = 'table' and piece.lower_block is not null then
        execute format('select from %s limit 0', job.source);
        if pg_relation_filenode(job.source::regclass) <> job.source_filenode then
            raise exception 'the table % was rewritten since job % was planned', job.source, job.job_id
            using errcode = 'ML012', hint = format('By VACUUM FULL, CLUSTER, TRUNCATE or ALTER TABLE. Plan the rest anew: dbscore jobs retry %s.', job.job_id);
        end if;
    end if;
end
$function$;

-- the query that packs the rows of a piece: all at once, or some thousand at a time
create or replace function dbscore.packed_rows(job dbscore.job, piece dbscore.chunk, signature jsonb, columns text[], packing text, in_batches boolean) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    picked constant text := dbscore.source_rows(job, dbscore.chunk_condition(job, piece));
begin
    if not in_batches then
        return format('select %s %s', packing, picked);
    end if;
    return dbscore.in_batches(
        packing, (select string_agg(distinct format('%s.%I', dbscore.source_alias(job), c), ', ') from unnest(job.key_columns || columns) c),
        picked, dbscore.rows_at_once(signature));
end
$function$;

create or replace function dbscore.packing_query(job dbscore.job, piece dbscore.chunk) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    signature constant jsonb := dbscore.version_signature(job.model, job.version);
    -- always eight, so that they can be passed on by their number
    keys constant text := (
        select string_agg(case when i <= cardinality(job.key_columns) then format('pg_catalog.array_agg(%I) as k%s', job.key_columns[i], i) else format('null::text[] as k%s', i) end, ', ' order by i)
        from generate_series(1, 8) i);
    columns constant text[] := dbscore.job_columns(job, signature);
    packing constant text := format('count(*)::integer as n, %s, %s', keys, dbscore.packing(signature, columns));
begin
    -- what changed may be any number of rows: some thousand at a time, all seen by one snapshot
    return dbscore.packed_rows(job, piece, signature, columns, packing, in_batches => job.source_kind = 'table' and piece.lower_block is null);
end
$function$;

-- the query that packs rows and scores them: in one statement, so that a frame goes to the engine without being copied
-- into a variable
create or replace function dbscore.scoring(job dbscore.job, keys integer, packing text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return format(
    'select packed.n, %s, answer.* from (%s) as packed cross join lateral dbscore_engine.%I(dbscore_engine.%I(), packed.numbers, packed.integers, packed.texts) as answer',
    (select string_agg('packed.k' || i, ', ') from generate_series(1, keys) i), packing,
    format('%s_v%s_frame', job.model, job.version), format('%s_v%s_pin', job.model, job.version));

create or replace function dbscore.conflict_clause(job dbscore.job, probabilities text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if job.mode <> 'upsert' then
        return '';
    end if;
    return format(' on conflict (%s) do update set prediction = excluded.prediction%s, version = excluded.version, job_id = excluded.job_id',
                  (select string_agg(quote_ident(c), ', ') from unnest(dbscore.conflict_columns(job)) c),
                  case when probabilities <> '' then ', probabilities = excluded.probabilities' else '' end);
end
$function$;

-- adds a chunk's quarantined rows to the job's; raises where there are too many
create or replace function dbscore.count_errors(job dbscore.job, errors bigint, described text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    total bigint;
begin
    if errors > 0 then
        update dbscore.job j set errors = j.errors + count_errors.errors where j.job_id = job.job_id returning j.errors into total;
        if total > job.max_errors then
            raise exception '% row% cannot be scored, and % may be set aside: %', total, case when total > 1 then 's' else '' end, job.max_errors, described
            using errcode = 'ML012', hint = format('Correct the rows and retry the job (dbscore jobs retry %s), or score again with more max_errors.', job.job_id);
        end if;
    end if;
end
$function$;

-- computes rows in SQL and writes them, in one statement
create or replace function dbscore.compute_rows(job dbscore.job, piece dbscore.chunk) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $function$
declare
    signature constant jsonb := dbscore.version_signature(job.model, job.version);
    alias constant text := dbscore.source_alias(job);
    probabilities constant text := case when signature @> '{"outputs": [{"kind": "probabilities"}]}' then ', probabilities' else '' end;
    keys constant text[] := array(select format('%s.%I', alias, k) from unnest(job.key_columns) with ordinality as keys (k, i) order by i);
    results constant text := dbscore.compiled_rows(
        job.model, job.version, signature, keys, (parse_ident(alias))[1], dbscore.job_columns(job, signature),
        dbscore.source_rows(job, dbscore.chunk_condition(job, piece)));
    computing constant text := format('select count(computed) from (%s offset 0) as computed', results);
    inserting constant text := format('insert into %s (%s, prediction%s, version, job_id) select *, %s, %s from (%s) as results%s',
        dbscore.written_table(job),
        (select string_agg(quote_ident(k), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i)), probabilities,
        job.version, job.job_id, results, dbscore.conflict_clause(job, probabilities));
    counted bigint;
    reason text;
begin
    perform set_config('search_path', job.search_path, true);
    begin
        execute inserting;
        get diagnostics counted = row_count;
        return counted;
    exception when data_exception then
        reason := sqlerrm;
    end;
    -- whose fault it is: where the rows can be computed, the result table's
    execute computing;
    raise exception 'the result table % refuses a row: %', dbscore.written_table(job), reason using errcode = 'ML012';
end
$function$;

-- packs rows, scores them, writes them; a result's row type is passed so that PL/pgSQL keeps one plan for each, since
-- the types of the keys may be other ones for each
create or replace function dbscore.score_rows(job dbscore.job, packing text, result anyelement, out rows bigint, out errors bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- a chunk is over before its expressions would be compiled
set jit = off
as $function$
declare
    signature constant jsonb := dbscore.version_signature(job.model, job.version);
    keys constant integer := cardinality(job.key_columns);
    names constant text := (select string_agg(quote_ident(k), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i));
    probabilities constant text := case when signature @> '{"outputs": [{"kind": "probabilities"}]}' then ', probabilities' else '' end;
    scoring constant text := dbscore.scoring(job, 8, packing);
    head constant text := format('insert into %s (%s, prediction%s, version, job_id) select *, %s, %s from (', dbscore.written_table(job), names, probabilities, job.version, job.job_id);
    tail constant text := ') as answer' || dbscore.conflict_clause(job, probabilities);
    -- without and with NULLs, with errors, whose rows are left out
    statements constant text[] := array[
        head || dbscore.answering(signature, keys, false, false) || tail, head || dbscore.answering(signature, keys, true, false) || tail,
        head || dbscore.answering(signature, keys, true, true) || tail];
    wrong_keys constant text := (select string_agg(format('($%s)[e."row"]', i + 1), ', ' order by i) from generate_series(1, keys) i);
    quarantining constant text := format(
        'insert into %s (%s, reason, version, job_id) select %s, e.reason, %s, %s from pg_catalog.jsonb_to_recordset($1) as e ("row" integer, reason text)',
        job.errors_table, names, wrong_keys, job.version, job.job_id);
    describing constant text := format(
        'select pg_catalog.string_agg(pg_catalog.format(%L, pg_catalog.concat_ws('', '', %s), e.reason), ''; '')'
        ' from (select * from pg_catalog.jsonb_to_recordset($1) as e ("row" integer, reason text) limit 5) as e',
        replace(array_to_string(job.key_columns, ', '), '%', '%%') || ' = %s: %s', wrong_keys);
    scored record;
    -- fetched one by one: a loop over the query would have ten of them in memory at once, and later fifty
    batches refcursor;
    wrong integer[];
    described text;
begin
    rows := 0;
    errors := 0;
    perform set_config('search_path', job.search_path, true);
    open batches no scroll for execute scoring;
    loop
        fetch batches into scored;
        exit when not found;
        continue when scored.n = 0;
        wrong := '{}';
        if scored.errors is not null then
            wrong := array(select e."row" from pg_catalog.jsonb_to_recordset(scored.errors) as e ("row" integer));
            execute describing into described
            using scored.errors, scored.k1, scored.k2, scored.k3, scored.k4, scored.k5, scored.k6, scored.k7, scored.k8;
            perform dbscore.count_errors(job, pg_catalog.cardinality(wrong), described);
            execute quarantining using scored.errors, scored.k1, scored.k2, scored.k3, scored.k4, scored.k5, scored.k6, scored.k7, scored.k8;
            errors := errors + pg_catalog.cardinality(wrong);
        end if;
        begin
            execute statements[case when scored.errors is not null then 3 when scored.nulls is not null then 2 else 1 end]
            using scored.predictions, scored.probabilities, scored.labels, scored.nulls, scored.n, wrong,
                  scored.k1, scored.k2, scored.k3, scored.k4, scored.k5, scored.k6, scored.k7, scored.k8;
        exception when data_exception then
            -- no row of the source is to blame
            raise exception 'the result table % refuses a row: %', dbscore.written_table(job), sqlerrm using errcode = 'ML012';
        end;
        rows := rows + scored.n - pg_catalog.cardinality(wrong);
    end loop;
    close batches;
end
$function$;

create or replace function dbscore.score_chunk(job_id integer, out chunk integer, out rows bigint, out errors bigint, out failure text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
    piece dbscore.chunk := dbscore.take_chunk(job);
    state text;
    message text;
    hint text;
begin
    if piece.number is null then
        return;
    end if;
    chunk := piece.number;
    begin
        perform dbscore.refuse_lost_results(job);
        perform dbscore.refuse_rewritten(job, piece);
        select s.rows, s.errors into rows, errors from dbscore.score_piece(job, piece) s;
        perform dbscore.finish_chunk(job_id, chunk, rows);
        update dbscore.chunk c set errors = score_chunk.errors where c.job_id = piece.job_id and c.number = piece.number;
    exception
        -- another transaction was in the way, or the server is a standby now: the chunk is tried again
        when serialization_failure or deadlock_detected or lock_not_available or read_only_sql_transaction then
            raise;
        when others then
            get stacked diagnostics state = returned_sqlstate, message = message_text, hint = pg_exception_hint;
            failure := concat_ws(E'\n', message, nullif(hint, ''));
            perform dbscore.fail_chunk(job_id, chunk, state, failure);
    end;
end
$function$;

create or replace function dbscore.claim_chunk(job_id integer, out chunk integer, out statement text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
    signature constant jsonb := dbscore.version_signature(job.model, job.version);
    piece constant dbscore.chunk := dbscore.take_chunk(job);
    state text;
    message text;
    hint text;
begin
    if piece.number is null then
        return;
    end if;
    chunk := piece.number;
    begin
        perform dbscore.refuse_lost_results(job);
        perform dbscore.refuse_rewritten(job, piece);
        statement := dbscore.client_statement(job, piece, signature, dbscore.job_columns(job, signature));
    exception
        when serialization_failure or deadlock_detected or lock_not_available or read_only_sql_transaction then
            raise;
        when others then
            get stacked diagnostics state = returned_sqlstate, message = message_text, hint = pg_exception_hint;
            perform dbscore.fail_chunk(job_id, chunk, state, concat_ws(E'\n', message, nullif(hint, '')));
    end;
end
$function$;

create or replace function dbscore.finish_chunk(job_id integer, chunk integer, rows bigint, errors bigint default 0, first_errors text default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
begin
    perform dbscore.count_errors(job, errors, first_errors);
    update dbscore.chunk c set status = 'done', rows = finish_chunk.rows, errors = finish_chunk.errors, sqlstate = null, error = null, finished_at = clock_timestamp()
    where c.job_id = job.job_id and c.number = chunk and c.status = 'planned';
    if not found then
        raise exception 'chunk % of job % is not one to finish', chunk, job_id using errcode = 'ML012';
    end if;
end
$function$;

create or replace function dbscore.fail_chunk(job_id integer, chunk integer, sqlstate text, message text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
begin
    update dbscore.chunk c set status = 'failed', sqlstate = fail_chunk.sqlstate, error = message, finished_at = clock_timestamp()
    where c.job_id = job.job_id and c.number = chunk and c.status = 'planned';
    update dbscore.job j set status = 'failed', error = message, finished_at = clock_timestamp() where j.job_id = job.job_id and j.status = 'running';
end
$function$;

comment on function dbscore.score_chunk(integer) is 'Scores one chunk of a job, in this transaction.';
comment on function dbscore.claim_chunk(integer) is 'Takes one chunk of a job, for the client to score in this transaction.';
