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
--   errors     ML001 as above; ML002 a feature is missing, unknown or of the wrong type; ML009 the server has no PL/Python
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

-- parallel unsafe: it plans a statement, and planning pins the model
create or replace function dbscore.predict(reference text, features jsonb) returns jsonb
language plpgsql stable strict
set search_path = pg_catalog, pg_temp
as $function$
declare
    resolved record;
    answer jsonb;
begin
    select * into resolved from dbscore.resolve(reference);
    if to_regprocedure(format('dbscore_engine.%I(text, jsonb)', format('%s_v%s_json', resolved.model, resolved.version))) is null then
        raise exception 'this server cannot score %:% itself: it has no PL/Python', resolved.model, resolved.version
        using errcode = 'ML009', hint = 'The workers of dbscore score can, on the client''s side.';
    end if;
    execute format('select dbscore_engine.%I(dbscore_engine.%I(), $1)',
                   resolved.model || '_v' || resolved.version || '_json', resolved.model || '_v' || resolved.version || '_pin')
    into answer using features;
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
comment on function dbscore.sessions() is 'The models that this connection has loaded, least recently used first.';
