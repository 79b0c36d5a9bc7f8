-- sql/015_engine.sql: the PL/Python part, which only a superuser can create.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Runs as   a superuser; everything else in sql/ runs as the owner of the schema dbscore
-- Needs     search_path = pg_catalog, pg_temp; the schemas dbscore and dbscore_engine; the owner of the first deploys, a superuser owns the second
--
-- Nothing here can be called by anybody but the owner, until `dbscore grant` gives a role one model's functions.
--
-- dbscore_engine.body(call)                   the text of a PL/Python function that runs `call` in the runtime
-- dbscore_engine.create_functions(name, ...)  makes the functions of one version
-- dbscore_engine.pin(sha256, session_cache)   writes the model's file, where it is not there yet
-- dbscore_engine.forget(sha256)               removes it
-- dbscore_engine.sessions()                   what this backend has loaded
-- dbscore_engine.python()                     the versions of the server's Python and its packages

create extension if not exists plpython3u;

create or replace function dbscore_engine.body(call text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $body$
select format($python$
if "call" not in SD:
    if %1$L not in GD:
        import types
        # the runtime of dbscore {{version}}; PL/Python puts a tab in front of each line, which is taken out again
        text = r'''%2$s'''
        module = types.ModuleType("dbscore_runtime")
        module.plpy = plpy
        exec(compile(text.replace("\n\t", "\n"), "dbscore/runtime", "exec", dont_inherit=True), module.__dict__)
        for other in [key for key in GD if key.startswith("dbscore ")]:
            # functions of before the upgrade may still hold the old runtime, but not its models
            GD.pop(other).SESSIONS.models.clear()
        GD[%1$L] = module
    runtime = GD[%1$L]
    SD["call"] = %3$s
return SD["call"](args)
$python$, 'dbscore {{runtime_sha256}}', $runtime${{runtime}}$runtime$, call)
$body$;

create or replace function dbscore_engine.create_functions(version_name text, sha256 text, signature jsonb)
returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $function$
-- Makes, for the version tip_v3: tip_v3(pin, features...), tip_v3(pin, numbers[, texts]), tip_v3_json(pin, features),
-- the same with _proba and _score where the model has them, tip_v3_frame(pin, numbers, integers, texts) for many rows at
-- once, and tip_v3_pin(). They are owned by the owner of the schema dbscore. Whatever comes from the caller is checked or
-- quoted: the body of a PL/Python function is code.
declare
    owner constant text := (select nspowner::regrole from pg_namespace where nspname = 'dbscore');
    allowed constant text[] := '{boolean,smallint,integer,bigint,real,double precision,text,real[],double precision[],bigint[],boolean[],text[]}';
    features constant jsonb := signature -> 'features';
    types text[];
    has_text boolean;
    all_numbers boolean;
    never_null boolean;
    prediction text;
    -- how many probabilities a row has; null where there are none
    classes constant integer := case when signature @> '{"outputs": [{"kind": "probabilities"}]}' then jsonb_array_length(signature -> 'classes') end;
    result record;
    form record;
    called text;
begin
    if version_name is null or version_name !~ '^[a-z_][a-z0-9_]{0,47}_v[1-9][0-9]{0,6}$' then
        raise exception 'version name % is not <model>_v<number>', quote_nullable(version_name) using errcode = 'ML003';
    end if;
    if sha256 is null or sha256 !~ '^[0-9a-f]{64}$' then
        raise exception 'sha256 % is not 64 hexadecimal digits', quote_nullable(sha256) using errcode = 'ML005';
    end if;
    select array_agg(f ->> 'type' order by ordinality), bool_or(f ->> 'type' = 'text'),
           bool_and(f ->> 'type' <> 'text' and f ->> 'type' not like '%[]'), bool_and(f ->> 'null_policy' = 'null')
    into types, has_text, all_numbers, never_null
    from jsonb_array_elements(features) with ordinality as features (f, ordinality);
    select o ->> 'type' into prediction
    from jsonb_array_elements(signature -> 'outputs') as outputs (o) where o ->> 'kind' = 'prediction';
    if types is null or not types <@ allowed or prediction is null or prediction <> all (allowed) then
        raise exception 'the signature of % has a type that dbscore does not know: %, giving %', version_name, types, prediction
        using errcode = 'ML002';
    end if;

    for result in
        select * from (values ('', 'prediction', prediction), ('_proba', 'proba', 'double precision[]'), ('_score', 'score', 'double precision'), ('_json', 'json', 'jsonb'))
            as results (suffix, kind, type)
        where kind in ('prediction', 'json') or (kind = 'proba' and classes is not null) or (kind = 'score' and classes = 2)
    loop
        for form in
            select * from (values
                ('json', 'jsonb', true, result.kind = 'json'),
                -- one argument is the pin, and a function has at most a hundred
                ('row', array_to_string(types, ', '), never_null, result.kind <> 'json' and cardinality(types) < 100),
                ('array', 'double precision[]' || case when has_text then ', text[]' else '' end, true,
                 result.kind <> 'json' and (all_numbers or cardinality(types) >= 100))
            ) as forms (name, arguments, is_strict, wanted)
            where wanted
        loop
            -- a JSON string is a Python string literal too, with every quote and backslash in it escaped
            called := format('runtime.scorer(%s, %s, %s, %s, %s)', to_json(version_name), to_json(sha256),
                             to_json(signature::text), to_json(form.name), to_json(result.kind));
            execute format(
                'create or replace function dbscore_engine.%I(text, %s) returns %s language plpython3u immutable parallel safe %s as %L',
                version_name || result.suffix, form.arguments, result.type,
                case when form.is_strict then 'strict' else '' end, dbscore_engine.body(called));
            execute format('revoke all on function dbscore_engine.%I(text, %s) from public', version_name || result.suffix, form.arguments);
            execute format('alter function dbscore_engine.%I(text, %s) owner to %s', version_name || result.suffix, form.arguments, owner);
        end loop;
    end loop;

    -- not parallel safe: between its slices it asks for cancels by SPI, which parallel plans before PostgreSQL 17 may not run
    execute format(
        'create or replace function dbscore_engine.%I(text, numbers bytea, integers bytea, texts text[], out predictions bytea,'
        ' out probabilities bytea, out labels text[], out nulls bytea, out errors jsonb) language plpython3u volatile as %L',
        version_name || '_frame',
        dbscore_engine.body(format('runtime.frame_scorer(%s, %s, %s)', to_json(version_name), to_json(sha256), to_json(signature::text))));
    execute format('revoke all on function dbscore_engine.%I(text, bytea, bytea, text[]) from public', version_name || '_frame');
    execute format('alter function dbscore_engine.%I(text, bytea, bytea, text[]) owner to %s', version_name || '_frame', owner);

    -- immutable: its value is; so the planner evaluates it, in the leader, before parallel workers start
    execute format(
        'create or replace function dbscore_engine.%I() returns text language sql immutable security definer set search_path = pg_catalog, pg_temp as %L',
        version_name || '_pin', format('select dbscore_engine.pin(%L, current_setting(''dbscore.session_cache'', true))', sha256));
    execute format('revoke all on function dbscore_engine.%I() from public', version_name || '_pin');
    execute format('alter function dbscore_engine.%I() owner to %s', version_name || '_pin', owner);
end
$function$;

-- the fixed functions are made with the same body, and change whenever the runtime does
do $do$
declare
    statement record;
begin
    for statement in
        select * from (values
            ('pin(sha256 text, session_cache text) returns text language plpython3u immutable security definer set search_path = pg_catalog, pg_temp', 'lambda args: runtime.pin(*args)'),
            ('forget(sha256 text) returns void language plpython3u volatile strict', 'lambda args: runtime.SESSIONS.forget(*args)'),
            ('sessions() returns table (sha256 text, bytes bigint, calls bigint, load_seconds double precision, loaded_at timestamptz) language plpython3u volatile', 'lambda args: runtime.sessions()')
        ) as statements (head, call)
    loop
        execute pg_catalog.format('create or replace function dbscore_engine.%s as %L', statement.head, dbscore_engine.body(statement.call));
    end loop;
end
$do$;

revoke all on function dbscore_engine.pin(text, text), dbscore_engine.forget(text), dbscore_engine.sessions() from public;
grant execute on function dbscore_engine.forget(text) to {{owner}};
grant execute on function dbscore_engine.sessions() to {{owner}} with grant option;

-- it reads dbscore.artifact with the owner's rights, not with a superuser's
alter function dbscore_engine.pin(text, text) owner to {{owner}};

create or replace function dbscore_engine.python() returns jsonb
language plpython3u volatile
as $python$
import importlib, json, os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
found = {"python": "%d.%d" % sys.version_info[:2]}
for name in ("numpy", "onnxruntime"):
    try:
        found[name] = importlib.import_module(name).__version__
    except Exception as error:
        found[name + "_error"] = "%s: %s" % (type(error).__name__, error)
return json.dumps(found)
$python$;

revoke all on function dbscore_engine.body(text), dbscore_engine.create_functions(text, text, jsonb), dbscore_engine.python() from public;
grant usage on schema dbscore_engine to {{owner}} with grant option;
grant execute on function dbscore_engine.body(text), dbscore_engine.create_functions(text, text, jsonb), dbscore_engine.python() to {{owner}};

comment on function dbscore_engine.body(text) is 'The text of a PL/Python function that runs a call in the dbscore runtime, version {{version}}.';
comment on function dbscore_engine.create_functions(text, text, jsonb) is 'Makes the PL/Python functions of one version.';
comment on function dbscore_engine.pin(text, text) is 'Makes sure that the model''s file is in the data directory; returns its hash.';
comment on function dbscore_engine.forget(text) is 'Removes the model''s file and this backend''s session; both come back when needed.';
comment on function dbscore_engine.sessions() is 'The models that this backend has loaded.';
comment on function dbscore_engine.python() is 'The versions of the server''s Python, numpy and onnxruntime.';
