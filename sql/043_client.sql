-- sql/043_client.sql: what a worker that writes by COPY reads: a chunk's rows, packed; or their scores, where the
-- server has them.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/042_chunks.sql, sql/043_quarantine.sql; nothing of PL/Python
--
-- A row for each value would cost client and server more than the scoring. So rows come by the thousand, as bytes in
-- network order: each has the columns n, k1..kn, numbers, integers, a1..am, texts.
--   n         how many rows
--   k1..kn    the keys: an array of them in binary form, of which each element is what binary COPY writes
--   numbers   the features that are a number, one row behind the other; NULL as a NaN that no computation makes
--   integers  the bigint features that stay one: the value, and 1 where it is NULL
--   a1..am    the array features, in binary form; whatever the value was, each row has as many elements as the feature
--   texts     the text features, one feature's behind the other's
-- An array feature's shape is among the numbers: NULL, 0 where it fits, -1 with several dimensions, -2 with no
-- element, else how many it has.

-- whether binary COPY passes a key on as it is: it does not where the type has no binary form, and an array of arrays
-- would have one size for all
create or replace function dbscore.has_binary_form(type text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return (select t.typsend <> 0 and t.typreceive <> 0 and t.typcategory <> 'A' from pg_type t where t.oid = to_regtype(type));

-- in pairs of pairs, so that a row of thousands is not copied once for each
create or replace function dbscore.joined(pieces text[]) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    half constant integer := cardinality(pieces) / 2;
begin
    if half = 0 then
        return pieces[1];
    end if;
    return format('(%s || %s)', dbscore.joined(pieces[:half]), dbscore.joined(pieces[half + 1:]));
end
$function$;

-- the keys, as binary COPY has them, or as texts
create or replace function dbscore.sent_keys(job dbscore.job) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select string_agg(format('pg_catalog.array_send(pg_catalog.array_agg((%I)%s)) as k%s', k,
                             case when dbscore.has_binary_form(job.key_types[i]) then '' else '::text' end, i), ', ' order by i)
    from unnest(job.key_columns) with ordinality as keys (k, i)
);

create or replace function dbscore.client_packing(job dbscore.job, signature jsonb, columns text[]) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    exact constant text[] := dbscore.exact_tensors(signature);
    element constant text := dbscore.frame_element(signature);
    sent constant text := case when element = 'double precision'
        then 'coalesce(pg_catalog.float8send((%s)::double precision), ''\x7ff8000000000db5'')'
        else 'coalesce(pg_catalog.float4send((%s)::real), ''\x7fc00db5'')' end;
    feature jsonb;
    value text;
    fits text;
    numbers text[] := '{}';
    integers text[] := '{}';
    arrays text[] := '{}';
    texts text[] := '{}';
    place integer := 0;
begin
    for feature in select f from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i) order by i
    loop
        place := place + 1;
        value := format('(%I)::%s', columns[place], feature ->> 'type');
        if feature ->> 'type' = 'text' then
            texts := texts || format('pg_catalog.array_agg(%s)', value);
        elsif feature ->> 'type' = 'bigint' and feature ->> 'tensor' = any (exact) then
            integers := integers || format('pg_catalog.int8send(coalesce(%1$s, 0)) || pg_catalog.int8send((%1$s is null)::integer)', value);
        elsif feature ->> 'type' like '%[]' then
            fits := format('pg_catalog.array_ndims(%1$s) = 1 and pg_catalog.cardinality(%1$s) = %2$s', value, feature ->> 'width');
            arrays := arrays || format('pg_catalog.array_send(pg_catalog.array_agg(case when %s then %s::%s[] else pg_catalog.array_fill(null::%3$s, array[%4$s]) end))',
                                       fits, value, element, feature ->> 'width');
            numbers := numbers || format(sent, format(
                'case when %s then 0 when pg_catalog.array_ndims(%2$s) > 1 then -1 when pg_catalog.cardinality(%2$s) = 0 then -2 else pg_catalog.cardinality(%2$s) end', fits, value));
        else
            numbers := numbers || format(sent, case feature ->> 'type' when 'boolean' then value || '::integer' else value end);
        end if;
    end loop;
    return concat_ws(', ', 'count(*)::integer as n', dbscore.sent_keys(job),
        case when numbers = '{}' then 'null::bytea' else format('pg_catalog.string_agg(%s, '''')', dbscore.joined(numbers)) end || ' as numbers',
        case when integers = '{}' then 'null::bytea' else format('pg_catalog.string_agg(%s, '''')', dbscore.joined(integers)) end || ' as integers',
        (select string_agg(format('%s as a%s', a, i), ', ' order by i) from unnest(arrays) with ordinality as pieces (a, i)),
        case when texts = '{}' then 'null::text[]' else array_to_string(texts, ' operator(pg_catalog.||) ') end || ' as texts');
end
$function$;

-- what packs a chunk's rows, and scores them where the server can: all at once where they are few, else some thousand at a time
create or replace function dbscore.client_statement(job dbscore.job, piece dbscore.chunk, signature jsonb, columns text[]) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    on_server constant boolean := job.runs_on = 'server';
    packing constant text := case when on_server
        then concat_ws(', ', 'count(*)::integer as n', dbscore.sent_keys(job), dbscore.packing(signature, columns))
        else dbscore.client_packing(job, signature, columns) end;
    width constant bigint := (select sum((f ->> 'width')::integer) from jsonb_array_elements(signature -> 'features') f);
    few constant boolean := (job.source_kind <> 'table' or piece.lower_block is not null) and job.chunk_rows <= 50000 and job.chunk_rows * width <= 1 << 23;
    statement constant text := dbscore.packed_rows(job, piece, signature, columns, packing, in_batches => not few);
begin
    return case when on_server then dbscore.scoring(job, cardinality(job.key_columns), statement) else statement end;
end
$function$;

-- the halves, or the rows, of a piece whose rows cannot be packed, each with what packs it; none where it is one row
create or replace function dbscore.client_parts(job_id integer, piece dbscore.chunk) returns table (part dbscore.chunk, statement text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    job constant dbscore.job := dbscore.own_job(job_id);
    signature constant jsonb := dbscore.version_signature(job.model, job.version);
    columns constant text[] := dbscore.job_columns(job, signature);
begin
    for part in select * from dbscore.split_piece(job, piece)
    loop
        statement := dbscore.client_statement(job, part, signature, columns);
        return next;
    end loop;
end
$function$;

comment on function dbscore.has_binary_form(text) is 'Whether a key of a type is passed on in binary form.';
comment on function dbscore.joined(text[]) is 'One expression that concatenates others.';
comment on function dbscore.sent_keys(dbscore.job) is 'The select list that packs keys for a worker that writes by COPY.';
comment on function dbscore.client_packing(dbscore.job, jsonb, text[]) is 'The select list that packs rows for a worker that scores in its own process.';
comment on function dbscore.client_parts(integer, dbscore.chunk) is 'The parts of a piece whose rows cannot be packed, and the queries that pack them.';
comment on function dbscore.client_statement(dbscore.job, dbscore.chunk, jsonb, text[]) is 'The query that packs a chunk''s rows for a worker that scores in its own process.';
