-- sql/030_scoring.sql: what analysts call that is not generated per model.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0001, sql/020_registry.sql
--
-- dbscore.resolve(reference) -> model, version
--   reference  'churn' (its champion), 'churn@challenger' or 'churn:3'
--   errors     ML001 no such model, version or alias among those the caller may score
--
-- dbscore.predict(reference, features) -> jsonb
--   features   an object with one value per feature, by name; null is a missing value
--   result     model, version, prediction and, for classifiers, probabilities by class; NULL for NULL
--   errors     ML001 as above; ML002 a feature is missing, unknown or of the wrong type; ML009 nothing here computes the version
--
-- dbscore.read_row(version, features, row) -> texts      what predict does where there is no PL/Python: the values as
-- dbscore.read_value(version, feature, value) -> text    texts of the features' types; ML002 as above
-- dbscore.read_number(version, feature, type, value) -> text
-- dbscore.answered(value) -> jsonb                       a number, or an array of them: NaN and the infinities are texts
--
-- dbscore.sessions() -> the models that this connection's backend has loaded

create or replace function dbscore.resolve(reference text, out model text, out version integer)
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    parts constant text[] := regexp_match(reference, '^([^@:]+)(?:@([^@:]+)|:([0-9]{1,9}))?$');
    named constant text := parts[1];
    wanted constant text := coalesce(parts[2], 'champion');
    number constant integer := parts[3]::integer;
    known text;
begin
    if parts is null then
        raise exception '% is not a reference to a model', quote_nullable(reference)
        using errcode = 'ML001', hint = 'Write a name, name@alias or name:version, such as churn, churn@challenger or churn:3.';
    end if;
    if number is null then
        select a.model, a.version into model, version from dbscore.aliases a where a.model = named and a.alias = wanted;
    else
        select v.model, v.version into model, version from dbscore.versions v
        where v.model = named and v.version = number and v.status = 'active';
    end if;
    if model is not null then
        return;
    end if;
    if not exists (select from dbscore.models m where m.model = named) then
        select string_agg(m.model, ', ' order by m.model) into known from dbscore.models m;
        raise exception 'there is no model %', quote_literal(named)
        using errcode = 'ML001', hint = coalesce('Models that you may score: ' || known || '.', 'There is no model that you may score.');
    elsif number is null then
        select string_agg(a.alias, ', ' order by a.alias) into known from dbscore.aliases a where a.model = named;
        raise exception 'model % has no alias %', named, quote_literal(wanted)
        using errcode = 'ML001', hint = coalesce('Its aliases: ' || known || '.', 'It has no aliases.');
    else
        select string_agg(v.version::text, ', ' order by v.version) into known from dbscore.versions v where v.model = named and v.status = 'active';
        raise exception 'model % has no version %', named, number
        using errcode = 'ML001', hint = coalesce('Its versions: ' || known || '.', 'It has no active version.');
    end if;
end
$function$;

-- a number as its SQL type would hold it: the words and the rounding are those of the PL/Python functions, in which a
-- number with a point is a double
create or replace function dbscore.read_number(version text, feature text, type text, value jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $function$
declare
    is_number constant boolean := jsonb_typeof(value) = 'number';
    given constant text := value #>> '{}';
    -- where double precision and real end: half a step further is still rounded to the largest
    largest constant numeric := case type when 'real' then 3.4028235677973366e38 else 1.7976931348623158e308 end;
    least constant numeric := case type when 'real' then 7.006492321624085e-46 else 2.4703282292062328e-324 end;
    bounds constant numeric[] := case type
        when 'boolean' then '{0,1}' when 'smallint' then '{-32768,32767}' when 'integer' then '{-2147483648,2147483647}'
        when 'bigint' then '{-9223372036854775808,9223372036854775807}' end;
    number numeric;
begin
    if value = 'null' then
        return null;
    elsif is_number then
        number := given::numeric;
        if type in ('real', 'double precision') then
            if abs(number) < largest then
                return case when abs(number) <= least then '0' when type = 'real' then number::float8::float4::text else number::float8::text end;
            end if;
        else
            if given like '%.%' and abs(number) < 1e300 then
                number := number::float8::numeric;
            end if;
            if number = trunc(number) and number between bounds[1] and bounds[2] then
                return case when type = 'boolean' then (number = 1)::text else trunc(number)::text end;
            end if;
        end if;
    end if;
    raise exception '%: feature % is %, which type % does not hold', version, feature,
        left(case jsonb_typeof(value) when 'string' then quote_literal(given) else value::text end, 200), type
    using errcode = 'ML002', hint = 'Pass a number in the range of the feature''s type; a boolean is 0 or 1 in an array.';
end
$function$;

create or replace function dbscore.read_value(version text, feature jsonb, value jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    name constant text := feature ->> 'name';
    type constant text := feature ->> 'type';
    found constant text := jsonb_typeof(value);
begin
    if found = 'null' then
        return null;
    elsif type = 'text' and found = 'string' or type = 'boolean' and found = 'boolean' then
        return value #>> '{}';
    elsif type like '%[]' and found = 'array' then
        return array(
            select dbscore.read_number(version, name, left(type, -2), e)
            from jsonb_array_elements(value) with ordinality as elements (e, i) order by i);
    elsif type in ('text', 'boolean') or type like '%[]' or found <> 'number' then
        raise exception '%: feature % is %, not of type %', version, name, left(value::text, 200), type
        using errcode = 'ML002', hint = 'Pass a JSON value of the feature''s type: a number, true or false, a string, an array of numbers.';
    end if;
    return dbscore.read_number(version, name, type, value);
end
$function$;

create or replace function dbscore.read_row(version text, features jsonb, "row" jsonb) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $function$
declare
    names constant text[] := array(select f ->> 'name' from jsonb_array_elements(features) with ordinality as listed (f, i) order by i);
    problem text;
begin
    if jsonb_typeof("row") <> 'object' then
        raise exception '%: the features are %, not a JSON object', version, left("row"::text, 200)
        using errcode = 'ML002', hint = format('Pass an object with %s.', array_to_string(names, ', '));
    end if;
    problem := concat_ws('; ',
        (select string_agg(format('feature %s is missing', n), '; ' order by i) from unnest(names) with ordinality as listed (n, i) where not "row" ? n),
        (select string_agg(format('feature %s is unknown', quote_literal(k)), '; ' order by i) from jsonb_object_keys("row") with ordinality as listed (k, i) where k <> all (names)));
    if problem <> '' then
        raise exception '%: %', version, problem
        using errcode = 'ML002', hint = format('Pass exactly %s; null is a missing value.', array_to_string(names, ', '));
    end if;
    return array(
        select dbscore.read_value(version, f, "row" -> (f ->> 'name'))
        from jsonb_array_elements(features) with ordinality as listed (f, i) order by i);
end
$function$;

create or replace function dbscore.answered(value anyelement) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1
as $function$
declare
    type constant regtype := pg_typeof(value);
    number text;
begin
    if value is null then
        return 'null';
    elsif type in ('double precision'::regtype, 'real'::regtype) then
        -- a real has the digits that it has as a double, and a whole number its point
        number := case type when 'real'::regtype then value::text::float4::float8::text else value::text end;
        return case number when 'NaN' then '"nan"' when 'Infinity' then '"inf"' when '-Infinity' then '"-inf"'
            else number || case when number ~ '^-?[0-9]+$' then '.0' else '' end end;
    elsif type = 'double precision[]'::regtype then
        return (select jsonb_agg(dbscore.answered(e) order by i) from unnest(value::text::float8[]) with ordinality as elements (e, i));
    elsif type = 'real[]'::regtype then
        return (select jsonb_agg(dbscore.answered(e) order by i) from unnest(value::text::float4[]) with ordinality as elements (e, i));
    end if;
    return to_jsonb(value);
end
$function$;

-- parallel unsafe: it plans a statement, and planning pins the model
create or replace function dbscore.predict(reference text, features jsonb) returns jsonb
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $function$
declare
    resolved record;
    found record;
    answer jsonb;
    name text;
    given text[];
    arguments text;
begin
    select * into resolved from dbscore.resolve(reference);
    name := format('%s_v%s', resolved.model, resolved.version);
    if to_regprocedure(format('dbscore_engine.%I(text, jsonb)', name || '_json')) is not null then
        execute format('select dbscore_engine.%I(dbscore_engine.%I(), $1)', name || '_json', name || '_pin')
        into answer using features;
        return jsonb_build_object('model', resolved.model, 'version', resolved.version) || answer;
    end if;
    select v.signature, v.models_schema into found from dbscore.versions v where v.model = resolved.model and v.version = resolved.version;
    if not exists (select from pg_proc p where p.pronamespace = to_regnamespace(quote_ident(found.models_schema)) and p.proname = name) then
        raise exception 'this server cannot score %:% itself: it has no PL/Python, and the version is not compiled to SQL', resolved.model, resolved.version
        using errcode = 'ML009', hint = 'The workers of dbscore score can, on the client''s side.';
    end if;
    given := dbscore.read_row(name, found.signature -> 'features', features);
    arguments := (
        select string_agg(format('($1)[%s]::%s', i, f ->> 'type'), ', ' order by i)
        from jsonb_array_elements(found.signature -> 'features') with ordinality as listed (f, i));
    execute format('select pg_catalog.jsonb_build_object(''prediction'', dbscore.answered(%I.%I(%s)))', found.models_schema, name, arguments)
    into answer using given;
    if found.signature @> '{"outputs": [{"kind": "probabilities"}]}' then
        execute format(
            'select $2 operator(pg_catalog.||) pg_catalog.jsonb_build_object(''probabilities'', (select pg_catalog.jsonb_object_agg(class, dbscore.answered(p))'
            ' from rows from (pg_catalog.unnest(%I.%I(%s)), pg_catalog.jsonb_array_elements_text($3)) as listed (p, class) where p is not null))',
            found.models_schema, name || '_proba', arguments)
        into answer using given, answer, found.signature -> 'classes';
    end if;
    return jsonb_build_object('model', resolved.model, 'version', resolved.version) || answer;
end
$function$;

-- plpgsql: looks dbscore_engine.sessions() up when called, so that it is there without PL/Python too
create or replace function dbscore.sessions()
returns table (reference text, sha256 text, bytes bigint, calls bigint, load_seconds double precision, loaded_at timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    return query
    select (select string_agg(v.reference, ', ' order by v.reference) from dbscore.versions v where v.sha256 = s.sha256), s.*
    from dbscore_engine.sessions() s;
end
$function$;

comment on function dbscore.resolve(text) is 'The model and version that a reference means: churn, churn@challenger or churn:3.';
comment on function dbscore.predict(text, jsonb) is 'Scores one row given as a JSON object: select dbscore.predict(''churn'', ''{"age": 41}'').';
comment on function dbscore.read_row(text, jsonb, jsonb) is 'The values of a row given as a JSON object, as texts.';
comment on function dbscore.read_value(text, jsonb, jsonb) is 'A feature''s value given as JSON, as a text of its type.';
comment on function dbscore.read_number(text, text, text, jsonb) is 'A number given as JSON, as a text of its type.';
comment on function dbscore.answered(anyelement) is 'A prediction as JSON: NaN and the infinities are texts.';
comment on function dbscore.sessions() is 'The models that this connection has loaded, least recently used first.';
