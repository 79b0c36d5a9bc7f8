-- sql/035_batch.sql: what scores many rows at once: the SQL around the frame lane.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/020_registry.sql; at the time of scoring sql/010_frame.sql and the version's tip_v3_frame
--
-- Rows go through three statements: one packs them (array_agg of the keys, frames of the numbers, arrays of the texts),
-- one call scores the frame, one unpacks the answer. The first and the last are made here, as text.
--
-- dbscore.version_signature(model, version) -> jsonb     ML001 where the caller may not score it
-- dbscore.exact_tensors(signature) -> text[]             the tensors of 64-bit integers: a bigint feature of theirs stays one
-- dbscore.frame_element(signature) -> text               what a frame's numbers are: double precision, or real where all fit it
-- dbscore.packing(signature, columns) -> text            the select list that packs rows: numbers, integers, texts
-- dbscore.in_batches(packing, columns, from_rows, rows) -> text
--                                                        the query that packs rows, so many at a time
-- dbscore.answering(signature, keys, nulls, errors) -> text
--                                                        the query that unpacks an answer: k1..kn, prediction[, probabilities]
--   $1 predictions  $2 probabilities  $3 labels  $4 nulls  $5 how many rows  $6 rows with errors, from 1  $7... the keys' arrays
-- dbscore.batch_query(signature, query, key, key_type, callers_path) -> text
--                                                        packs the rows of a query, some thousand a time; ML002 where
--                                                        its key is not of the type that is returned
-- dbscore.compiled_query(model, version, query, key, key_type, callers_path) -> text
--                                                        scores the rows of a query in SQL, without the frame lane
-- dbscore.refuse_errors(errors, keys) -> void            ML002 where rows cannot be scored: says which, and why
-- dbscore.refuse_rows(model, version, query, key, key_type, callers_path) -> void
--                                                        the same for a query's rows and a compiled version

create or replace function dbscore.version_signature(model text, version integer) returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    found_signature constant jsonb := (
        select v.signature from dbscore.versions v
        where v.model = version_signature.model and v.version = version_signature.version and v.status = 'active');
begin
    if found_signature is null then
        raise exception 'there is no version %:% that you may score', model, version
        using errcode = 'ML001', hint = 'It was retired or dropped, or EXECUTE on its functions was revoked.';
    end if;
    return found_signature;
end
$function$;

-- whether a version's batches are computed in SQL: where that is faster, or nothing else is there
create or replace function dbscore.is_compiled(model text, version integer) returns boolean
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    name constant text := format('%s_v%s', model, version);
begin
    return exists (
        select from dbscore.versions v where v.model = is_compiled.model and v.version = is_compiled.version
        and (v.batch_engine = 'sql'
             or to_regprocedure(format('dbscore_engine.%I(text, bytea, bytea, text[])', name || '_frame')) is null
             and exists (select from pg_proc p where p.pronamespace = to_regnamespace(quote_ident(v.models_schema)) and p.proname = name)));
end
$function$;

create or replace function dbscore.exact_tensors(signature jsonb) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return array(select t ->> 'name' from jsonb_array_elements(signature -> 'tensors') t where t ->> 'dtype' = 'int64');

create or replace function dbscore.frame_element(signature jsonb) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case when exists (
    select from jsonb_array_elements(signature -> 'features') f where f ->> 'type' not in ('real', 'real[]', 'text')
        and not (f ->> 'type' = 'bigint' and f ->> 'tensor' = any (dbscore.exact_tensors(signature)))
) then 'double precision' else 'real' end;

create or replace function dbscore.in_batches(packing text, columns text, from_rows text, rows bigint) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
-- the DISTINCT, which never has a row, makes PostgreSQL sort rather than hash, so that one group at a time is in memory
return format(
    'select %s, count(distinct 1) filter (where false) from (select %s, (row_number() over () - 1) / %s as dbscore_batch %s) as numbered group by dbscore_batch',
    packing, columns, rows, from_rows);

create or replace function dbscore.packing(signature jsonb, columns text[]) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    exact constant text[] := dbscore.exact_tensors(signature);
    numbers constant text := dbscore.frame_element(signature);
    blank constant text := case numbers when 'real' then 'dbscore_engine.null_real()' else 'dbscore_engine.null_double()' end;
    feature jsonb;
    value text;
    fits text;
    scalars text[] := '{}';
    pieces text[] := '{}';
    integers text[] := '{}';
    texts text[] := '{}';
begin
    for feature in select f from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i) order by i
    loop
        value := format('(%I)::%s', case when feature ->> 'source' = any (columns) then feature ->> 'source' else feature ->> 'name' end, feature ->> 'type');
        if feature ->> 'type' = 'text' then
            texts := texts || format('pg_catalog.array_agg(%s)', value);
        elsif feature ->> 'type' = 'bigint' and feature ->> 'tensor' = any (exact) then
            integers := integers || format('coalesce(%1$s, 0), (%1$s is null)::integer::bigint', value);
        elsif feature ->> 'type' like '%[]' then
            value := format('(%s)::%s[]', value, numbers);
            fits := format('pg_catalog.array_ndims(%1$s) = 1 and pg_catalog.cardinality(%1$s) = %2$s', value, feature ->> 'width');
            if scalars <> '{}' then
                pieces := pieces || format('array[%s]::%s[]', array_to_string(scalars, ', '), numbers);
                scalars := '{}';
            end if;
            -- whatever it is, the row has the numbers of an array of the right length, and behind them what it was. The NULL
            -- in front makes PostgreSQL build the array anew: one may have a bitmap of NULLs and no NULL any more
            pieces := pieces || format('(pg_catalog.array_replace(array[null]::%1$s[] operator(pg_catalog.||) case when %2$s then %3$s else pg_catalog.array_fill(%4$s, array[%5$s]) end, null, %4$s))[2:%5$s + 1]',
                                       numbers, fits, value, blank, feature ->> 'width');
            scalars := array[format('case when %1$s is null then %2$s when %3$s then 0 when pg_catalog.array_ndims(%1$s) > 1 then -1 when pg_catalog.cardinality(%1$s) = 0 then -2 else pg_catalog.cardinality(%1$s) end',
                                    value, blank, fits)];
        else
            scalars := scalars || format('coalesce((%s)::%s, %s)', case feature ->> 'type' when 'boolean' then value || '::integer' else value end, numbers, blank);
        end if;
    end loop;
    if scalars <> '{}' then
        pieces := pieces || format('array[%s]::%s[]', array_to_string(scalars, ', '), numbers);
    end if;
    return concat_ws(', ',
        case when pieces = '{}' then 'null::bytea' else format('dbscore_engine.frame(%s, ''''::bytea)', array_to_string(pieces, ' operator(pg_catalog.||) ')) end || ' as numbers',
        case when integers = '{}' then 'null::bytea' else format('dbscore_engine.frame(array[%s]::bigint[], ''''::bytea)', array_to_string(integers, ', ')) end || ' as integers',
        case when texts = '{}' then 'null::text[]' else array_to_string(texts, ' operator(pg_catalog.||) ') end || ' as texts');
end
$function$;

create or replace function dbscore.answering(signature jsonb, keys integer, nulls boolean, errors boolean) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    type constant text := (select o ->> 'type' from jsonb_array_elements(signature -> 'outputs') o where o ->> 'kind' = 'prediction');
    many constant boolean := type like '%[]';
    scored constant boolean := signature @> '{"outputs": [{"kind": "probabilities"}]}';
    element constant text := replace(type, '[]', '');
    taken constant text := format('dbscore_engine.%I($1)', case element
        when 'double precision' then 'doubles' when 'real' then 'reals' when 'bigint' then 'bigints'
        when 'integer' then 'integers' when 'smallint' then 'smallints' when 'boolean' then 'booleans' when 'text' then 'integers' end);
    -- a part of a flat array is found without looking at what is before it
    piece constant text := '%1$s[(i - 1) * (pg_catalog.cardinality(%1$s) / $5) + 1 : i * (pg_catalog.cardinality(%1$s) / $5)]';
    prediction text := case
        when many and element = 'text' then format('array(select labels[code] from pg_catalog.unnest(' || piece || ') with ordinality as codes (code, place) order by place)', 'p')
        when many then format(piece, 'p')
        when element = 'text' then 'labels[p]'
        else 'p' end;
    probabilities text := format(piece, 'q');
begin
    if nulls then
        prediction := format('case when not missing then %s end', prediction);
        probabilities := format('case when not missing then %s end', probabilities);
    end if;
    -- offset 0 keeps the arrays from being made again for each row
    return format(
        'select %s, %s as prediction%s from (select %s, pg_catalog.generate_series(1, $5) as i, %s%s%s%s from (select %s, %s as p%s%s offset 0) raw) as unpacked%s',
        (select string_agg('k' || n, ', ') from generate_series(1, keys) n),
        prediction,
        case when scored then format(', %s as probabilities', probabilities) else '' end,
        (select string_agg(format('pg_catalog.unnest(k%1$s) as k%1$s', n), ', ') from generate_series(1, keys) n),
        case when many then 'p' else 'pg_catalog.unnest(p) as p' end,
        case when nulls then ', pg_catalog.unnest(missing) as missing' else '' end,
        case when scored then ', q' else '' end,
        case when element = 'text' then ', $3 as labels' else '' end,
        (select string_agg(format('$%s as k%s', n + 6, n), ', ') from generate_series(1, keys) n),
        taken,
        case when nulls then ', dbscore_engine.booleans($4) as missing' else '' end,
        case when scored then ', dbscore_engine.doubles($2) as q' else '' end,
        case when errors then ' where i <> all ($6)' else '' end);
end
$function$;

-- how many rows are packed into one frame where there may be any number: some thousand, or 32 MB of numbers
create or replace function dbscore.rows_at_once(signature jsonb) returns bigint
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return greatest(1, least(8192, (1 << 22) / (select sum((f ->> 'width')::integer) from jsonb_array_elements(signature -> 'features') f)));

-- a query without what ends it, and the columns of it that hold the features; ML002 where its key is not of the type
create or replace function dbscore.asked_rows(signature jsonb, query text, key text, key_type regtype, callers_path text, out asked text, out columns text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    integers constant regtype[] := '{smallint,integer,bigint}';
    feature jsonb;
    found_type regtype;
begin
    asked := rtrim(query, E'; \n\t\r') || E'\n';
    columns := '{}';
    if query is null or key is null then
        raise exception 'the % is NULL', case when query is null then 'query' else 'key' end
        using errcode = 'ML002', hint = 'Pass a query, and the name of the column that tells its rows apart.';
    end if;
    for feature in select f from jsonb_array_elements(signature -> 'features') f
    loop
        if feature ->> 'name' = feature ->> 'source' then
            columns := columns || (feature ->> 'name');
        else
            -- planned only: whether the query has the column by the estimator's name, or by its SQL identifier
            begin
                perform set_config('search_path', callers_path, true);
                execute pg_catalog.format('explain select %I from (%s) as asked', feature ->> 'source', asked);
                perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
                columns := columns || (feature ->> 'source');
            exception when undefined_column then
                columns := columns || (feature ->> 'name');
            end;
        end if;
    end loop;
    -- without a row: only what type it is
    perform set_config('search_path', callers_path, true);
    execute pg_catalog.format('select pg_catalog.pg_typeof((select %I from (%s) as asked limit 0))', key, asked) into found_type;
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    -- a function's result type is settled before it runs: an integer fits a larger one, anything else must be said
    if found_type <> key_type
        and (array_position(integers, found_type) is null or coalesce(array_position(integers, key_type), 0) < array_position(integers, found_type))
    then
        raise exception 'the key % is of type %, and the function returns %', quote_ident(key), found_type, key_type
        using errcode = 'ML002', hint = format('Say the type with a third argument: key_type => null::%s.', found_type);
    elsif exists (select from pg_type t where t.oid = found_type and t.typcategory = 'A') then
        raise exception 'the key % is an array, of type %', quote_ident(key), found_type
        using errcode = 'ML002', hint = format('Name a column of another type, or key it by its text: %I::text.', key);
    end if;
end
$function$;

create or replace function dbscore.batch_query(signature jsonb, query text, key text, key_type regtype, callers_path text) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant record := dbscore.asked_rows(signature, query, key, key_type, callers_path);
begin
    return dbscore.in_batches(
        format('count(*)::integer as n, pg_catalog.array_agg(%I)::%s[] as k1, %s', key, key_type, dbscore.packing(signature, found.columns)),
        (select string_agg(distinct quote_ident(name), ', ') from unnest(found.columns || key) as names (name)),
        format('from (%s) as asked', found.asked), dbscore.rows_at_once(signature));
end
$function$;

-- the query that computes a version's results of rows in SQL: the keys, the prediction and the probabilities
create or replace function dbscore.compiled_rows(model text, version integer, signature jsonb, keys text[], row_name text, columns text[], from_rows text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant record := (select v from dbscore.versions v where v.model = compiled_rows.model and v.version = compiled_rows.version);
    named constant text := format('%I.%I', found.models_schema, format('%s_v%s', model, version));
    scored constant boolean := signature @> '{"outputs": [{"kind": "probabilities"}]}';
    -- the probability of one class tells that of the other: it is computed once
    is_share constant boolean := scored and coalesce((found.choice ->> 'complement')::boolean, false);
    arguments constant text := (
        select string_agg(format('(%I.%I)::%s', row_name, columns[i], f ->> 'type'), ', ' order by i)
        from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i));
    inner_keys constant text := (select string_agg(format('%s as k%s', k, i), ', ' order by i) from unnest(keys) with ordinality as listed (k, i));
    outer_keys constant text := (select string_agg('k' || i, ', ' order by i) from generate_series(1, cardinality(keys)) i);
    score_function constant text := format('%I.%I', found.models_schema, format('%s_v%s_score', model, version));
    proba_function constant text := format('%I.%I', found.models_schema, format('%s_v%s_proba', model, version));
begin
    if is_share then
        return format(
            'select %s, prediction, case when score is not null then array[1 operator(pg_catalog.-) score, score] end as probabilities'
            ' from (select %s, %s(%s) as prediction, %s(%s) as score %s offset 0) as computed',
            outer_keys, inner_keys, named, arguments, score_function, arguments, from_rows);
    end if;
    return format('select %s, %s(%s) as prediction%s %s', inner_keys, named, arguments,
                  case when scored then format(', %s(%s) as probabilities', proba_function, arguments) else '' end, from_rows);
end
$function$;

create or replace function dbscore.compiled_query(model text, version integer, query text, key text, key_type regtype, callers_path text) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    signature constant jsonb := dbscore.version_signature(model, version);
    found constant record := dbscore.asked_rows(signature, query, key, key_type, callers_path);
begin
    return dbscore.compiled_rows(
        model, version, signature, array[format('(asked.%I)::%s', key, key_type)], 'asked', found.columns, format('from (%s) as asked', found.asked));
end
$function$;

create or replace function dbscore.refuse_errors(errors jsonb, keys text[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if errors is not null then
        raise exception '% of % rows cannot be scored: %', jsonb_array_length(errors), cardinality(keys),
            (select string_agg(format('row %s: %s', quote_nullable(keys[(e ->> 'row')::integer]), e ->> 'reason'), '; ')
             from (select e from jsonb_array_elements(errors) e limit 5) as first (e))
        using errcode = 'ML002', hint = 'Leave them out in the query, or score with dbscore score --max-errors, which sets them aside.';
    end if;
end
$function$;

-- raises the error of the batch functions for the rows of a query that a compiled version does not take; there may be none
create or replace function dbscore.refuse_rows(model text, version integer, query text, key text, key_type regtype, callers_path text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    signature constant jsonb := dbscore.version_signature(model, version);
    found constant record := dbscore.asked_rows(signature, query, key, key_type, callers_path);
    arguments constant text := (
        select string_agg(format('(asked.%I)::%s', found.columns[i], f ->> 'type'), ', ' order by i)
        from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i));
    telling constant text := format(
        'select count(*), count(reason), pg_catalog.string_agg(pg_catalog.format(''row %%s: %%s'', pg_catalog.quote_nullable(k), reason), ''; '' order by i) filter (where reason is not null and nth <= 5)'
        ' from (select *, count(reason) over (order by i) as nth'
        ' from (select (asked.%I)::pg_catalog.text as k, dbscore_compiled.%I(%s) as reason, row_number() over () as i from (%s) as asked) as told) as counted',
        key, format('%s_v%s_why', model, version), arguments, found.asked);
    total bigint;
    wrong bigint;
    described text;
begin
    perform set_config('search_path', callers_path, true);
    execute telling into total, wrong, described;
    if wrong > 0 then
        raise exception '% of % rows cannot be scored: %', wrong, total, described
        using errcode = 'ML002', hint = 'Leave them out in the query, or score with dbscore score --max-errors, which sets them aside.';
    end if;
end
$function$;

comment on function dbscore.version_signature(text, integer) is 'A version''s signature: its features, tensors and outputs.';
comment on function dbscore.is_compiled(text, integer) is 'Whether a version''s batches are computed in SQL.';
comment on function dbscore.asked_rows(jsonb, text, text, regtype, text) is 'A query without what ends it, and its columns that hold a version''s features.';
comment on function dbscore.compiled_rows(text, integer, jsonb, text[], text, text[], text) is 'The query that computes a version''s results of rows in SQL.';
comment on function dbscore.compiled_query(text, integer, text, text, regtype, text) is 'The query that scores the rows of a query in SQL.';
comment on function dbscore.exact_tensors(jsonb) is 'A version''s tensors of 64-bit integers.';
comment on function dbscore.frame_element(jsonb) is 'What the numbers of a version''s frames are.';
comment on function dbscore.in_batches(text, text, text, bigint) is 'The query that packs rows, so many at a time.';
comment on function dbscore.packing(jsonb, text[]) is 'The select list that packs rows for a version.';
comment on function dbscore.answering(jsonb, integer, boolean, boolean) is 'The query that unpacks the answer to a frame.';
comment on function dbscore.batch_query(jsonb, text, text, regtype, text) is 'The query that packs the rows of a query, some thousand a time.';
comment on function dbscore.refuse_rows(text, integer, text, text, regtype, text) is 'Raises an error where a compiled version does not take rows of a query: says which, and why.';
comment on function dbscore.refuse_errors(jsonb, text[]) is 'Raises an error where rows cannot be scored: says which, and why.';
