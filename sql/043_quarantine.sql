-- sql/043_quarantine.sql: rows that cannot even be packed, since a cast in the source or to a feature's type fails.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/042_chunks.sql
--
-- What the model cannot take is told row by row by the frame lane. An error of PostgreSQL's own ends the statement, and
-- does not say for which row: so the piece is halved until the rows are found, each half in a subtransaction.
--
-- dbscore.score_piece(job, piece) -> rows, errors    scores a piece; sets aside the rows that fail
-- dbscore.split_piece(job, piece) -> pieces          its halves, or its rows; none where it is one row

create or replace function dbscore.split_piece(job dbscore.job, piece dbscore.chunk) returns setof dbscore.chunk
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    alias constant text := dbscore.source_alias(job);
    keys constant text := (select string_agg(format('%s.%I', alias, k), ', ') from unnest(job.key_columns) k);
    picked constant text := dbscore.source_rows(job, dbscore.chunk_condition(job, piece));
    places constant text := format('select %s.ctid::text %s', alias, picked);
    middles constant text := format(
        'select bounds, total from (select array[%s]::text[] as bounds, row_number() over (order by %s) as i, count(*) over () as total %s) as ordered where i = total / 2',
        (select string_agg(format('pg_catalog.to_jsonb(%s.%I) #>> %L', alias, k, '{}'), ', ') from unnest(job.key_columns) k), keys, picked);
    part dbscore.chunk := piece;
    middle bigint;
    place text;
    found record;
begin
    if piece.lower_block is not null and piece.lower_key is not null then
        return;
    elsif piece.upper_block - piece.lower_block > 1 then
        middle := (piece.lower_block + piece.upper_block) / 2;
        part.upper_block := middle;
        return next part;
        part := piece;
        part.lower_block := middle;
        return next part;
        return;
    end if;
    perform set_config('search_path', job.search_path, true);
    if piece.lower_block is not null then
        for place in execute places
        loop
            part.lower_key := array[place];
            return next part;
        end loop;
        return;
    end if;
    execute middles into found;
    if found.total > 1 then
        part.upper_key := found.bounds;
        return next part;
        part := piece;
        part.lower_key := found.bounds;
        return next part;
    end if;
end
$function$;

-- one row, which cannot be packed
create or replace function dbscore.set_aside(job dbscore.job, piece dbscore.chunk, reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    picked constant text := dbscore.source_rows(job, dbscore.chunk_condition(job, piece));
    keys constant text := (select string_agg(format('%s.%I', dbscore.source_alias(job), k), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i));
    names constant text := (select string_agg(quote_ident(k), ', ' order by i) from unnest(job.key_columns) with ordinality as keys (k, i));
    telling constant text := format('select pg_catalog.concat_ws('', '', %s) %s', keys, picked);
    inserting constant text := format('insert into %s (%s, reason, version, job_id) select %s, $1, %s, %s %s', job.errors_table, names, keys, job.version, job.job_id, picked);
    described text;
begin
    perform set_config('search_path', job.search_path, true);
    execute telling into described;
    perform dbscore.count_errors(job, 1, pg_catalog.format('%s = %s: %s', pg_catalog.array_to_string(job.key_columns, ', '), described, reason));
    execute inserting using reason;
end
$function$;

create or replace function dbscore.score_piece(job dbscore.job, piece dbscore.chunk, out rows bigint, out errors bigint)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    part dbscore.chunk;
    scored record;
    reason text;
    divided boolean := false;
begin
    begin
        if dbscore.is_compiled(job.model, job.version) then
            rows := dbscore.compute_rows(job, piece);
            errors := 0;
            return;
        end if;
        execute format('select s.rows, s.errors from dbscore.score_rows($1, $2, null::%s) s', dbscore.written_table(job)) into rows, errors
        using job, dbscore.packing_query(job, piece);
        return;
    exception when data_exception or program_limit_exceeded or sqlstate 'ML002' then
        reason := left(sqlerrm, 500);
    end;
    rows := 0;
    errors := 0;
    for part in select * from dbscore.split_piece(job, piece)
    loop
        divided := true;
        select * into scored from dbscore.score_piece(job, part);
        rows := rows + scored.rows;
        errors := errors + scored.errors;
    end loop;
    if not divided then
        perform dbscore.set_aside(job, piece, reason);
        errors := 1;
    end if;
end
$function$;

comment on function dbscore.score_piece(dbscore.job, dbscore.chunk) is 'Scores a piece of a job''s source; sets aside the rows that fail.';
