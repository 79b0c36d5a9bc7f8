-- sql/025_promotion.sql: aliases: what they stand for, and their functions.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0001, sql/020_registry.sql
--
-- dbscore.promote(model, version, alias, reason)   points an alias, by default champion, to a version. It acts as the owner
--                                                  of the schema, and is granted to nobody: its members call it
-- dbscore.move_alias(model, version, alias, action, reason)   the same, as the owner
-- dbscore.publish_alias(model, version, alias)     makes an alias's functions call the version's, whatever they called before
-- errors: ML001 no such model or version; ML003 a name is taken; ML007 the version is retired, or something uses a function
--         that the version does not have

create or replace function dbscore.alias_function(model text, alias text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case alias when 'champion' then model else model || '_' || alias end;

-- whether a version's function takes the rows of a table as it is now: columns may be gone, or of other types
create or replace function dbscore.takes_row(routine oid, signature jsonb) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    relation constant regclass := (select t.typrelid from pg_proc p join pg_type t on t.oid = p.proargtypes[0] where p.oid = routine and p.pronargs = 1 and t.typtype = 'c');
begin
    if relation is not null then
        perform dbscore.feature_columns(signature, c.names, c.types, relation::text) from dbscore.relation_columns(relation) c;
    end if;
    return true;
exception when sqlstate 'ML002' then
    return false;
end
$function$;

create or replace function dbscore.publish_alias(model text, version integer, alias text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    suffixes constant text[] := '{"",_proba,_score,_batch,_explain}';
    schema constant oid := to_regnamespace(quote_ident((select i.models_schema from dbscore.installation i)));
    own constant text := dbscore.alias_function(model, alias);
    target constant text := format('%s_v%s', model, version);
    signature constant jsonb := (
        select v.signature from dbscore.version v join dbscore.model m using (model_id) where m.name = publish_alias.model and v.number = publish_alias.version);
    -- those that an alias has too, by what follows the name
    targets constant oid[] := array(
        select p.oid from pg_proc p cross join unnest(suffixes) suffix
        where p.pronamespace = schema and p.proname = target || suffix and dbscore.takes_row(p.oid, signature));
    routine record;
    call text;
    body text;
    role text;
begin
    -- what the version does not have, or has otherwise, goes; PostgreSQL refuses where something uses it
    for routine in
        select p.oid::regprocedure as signature from pg_proc p cross join unnest(suffixes) suffix
        where p.pronamespace = schema and p.proname = own || suffix and not exists (
            select from pg_proc t where t.oid = any (targets) and t.proname = target || suffix and t.proargtypes = p.proargtypes
            and pg_get_function_result(t.oid) = pg_get_function_result(p.oid) and t.proargnames is not distinct from p.proargnames)
    loop
        execute format('drop function %s', routine.signature);
    end loop;
    for routine in
        select p.oid, suffix, n.nspname, pg_get_function_arguments(p.oid) as arguments, pg_get_function_identity_arguments(p.oid) as identity,
            pg_get_function_result(p.oid) as result, p.prorows, obj_description(p.oid, 'pg_proc') as about,
            (select string_agg('$' || i, ', ' order by i) from generate_series(1, p.pronargs) i) as passed,
            exists (select from unnest(p.proargtypes::oid[]) a join pg_type t on t.oid = a where t.typtype = 'c') as takes_row
        from pg_proc p join pg_namespace n on n.oid = p.pronamespace cross join unnest(suffixes) suffix
        where p.oid = any (targets) and p.proname = target || suffix
    loop
        -- an alias moves, so nothing may be stored that depends on it: the condition, always true, keeps PostgreSQL from taking
        -- the inlined body for immutable, and so from indexing it
        call := case when routine.suffix in ('_batch', '_explain') then 'select * from %I.%I(%s)' else 'case when current_timestamp is not null then %I.%I(%s) end' end;
        call := format(call, routine.nspname, target || routine.suffix, routine.passed);
        -- a parsed body names what it calls for good, and PostgreSQL knows what depends on what. A body that takes a row is a
        -- string: parsed, it would depend on the whole row type, and no column could be added with a default
        body := case
            when routine.suffix = '_batch' or routine.suffix = '_explain' and routine.takes_row then format('as %L', call)
            when routine.suffix = '_explain' then format('begin atomic %s; end', call)
            when routine.takes_row then format('as %L', 'select ' || call)
            else 'return ' || call end;
        execute format('create or replace function %I.%I(%s) returns %s language sql %s%s %s', routine.nspname, own || routine.suffix, routine.arguments, routine.result,
            case routine.suffix when '_batch' then 'volatile' else 'stable parallel safe' end,
            case when routine.prorows > 0 then ' rows ' || routine.prorows else '' end, body);
        execute format('revoke all on function %I.%I(%s) from public', routine.nspname, own || routine.suffix, routine.identity);
        execute format('comment on function %I.%I(%s) is %L', routine.nspname, own || routine.suffix, routine.identity,
            regexp_replace(routine.about, '^[^:]*:', format('%s (%s) is version %s:', model, alias, version)));
        -- whoever may score the version may score what stands for it
        for role in
            select distinct r.rolname from pg_proc p cross join aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
            where p.oid = routine.oid and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner
        loop
            execute format('grant execute on function %I.%I(%s) to %I', routine.nspname, own || routine.suffix, routine.identity, role);
        end loop;
    end loop;
end
$function$;

create or replace function dbscore.move_alias(model text, version integer, alias text, action text, reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    found_model dbscore.model;
    found_version dbscore.version;
    before integer;
    taken text;
begin
    -- two promotions of a model: one after the other
    select m.* into found_model from dbscore.model m where m.name = move_alias.model for update;
    if found_model.model_id is null then
        raise exception 'there is no model %', quote_nullable(model) using errcode = 'ML001', hint = 'select model from dbscore.models shows those there are.';
    end if;
    select v.* into found_version from dbscore.version v where v.model_id = found_model.model_id and v.number = move_alias.version;
    if found_version.version_id is null then
        raise exception 'model % has no version %', model, version using errcode = 'ML001', hint = 'select reference from dbscore.versions shows those there are.';
    elsif found_version.status <> 'active' then
        raise exception '%:% is %', model, version, found_version.status using errcode = 'ML007', hint = 'Promote an active version, or deploy it again.';
    end if;
    select v.number into before from dbscore.alias a join dbscore.version v using (version_id) where a.model_id = found_model.model_id and a.name = alias;
    if before = version then
        return;
    elsif before is null then
        select p.proname into taken from pg_proc p
        where p.pronamespace = to_regnamespace(quote_ident((select i.models_schema from dbscore.installation i)))
          and p.proname in (select dbscore.alias_function(model, alias) || s from unnest('{"",_proba,_score,_batch,_explain}'::text[]) s) limit 1;
        if taken is not null then
            raise exception 'the function % is there already', taken using errcode = 'ML003', hint = 'Choose another alias, or drop that function.';
        end if;
    end if;
    insert into dbscore.alias (model_id, name, version_id) values (found_model.model_id, alias, found_version.version_id)
    on conflict (model_id, name) do update set version_id = excluded.version_id;
    insert into dbscore.alias_history (model, alias, action, from_number, to_number, reason)
    values (move_alias.model, move_alias.alias, move_alias.action, before, version, coalesce(move_alias.reason, ''));
    perform dbscore.publish_alias(model, version, alias);
end
$function$;

create or replace function dbscore.promote(model text, version integer, alias text default 'champion', reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
begin
    if alias is null or alias !~ '^[a-z_][a-z0-9_]*$' or alias ~ '^v[0-9]+$' or alias in ('proba', 'score', 'batch', 'explain')
        or octet_length(dbscore.alias_function(model, alias) || '_explain') > 63
    then
        raise exception '% is not a name for an alias', quote_nullable(alias)
        using errcode = 'ML003', hint = 'Use lower-case letters, digits and _; not v and a number, proba, score, batch or explain; not too many.';
    end if;
    perform dbscore.move_alias(model, version, alias, 'promote', reason);
end
$function$;

comment on function dbscore.alias_function(text, text) is 'The name of an alias''s function.';
comment on function dbscore.takes_row(oid, jsonb) is 'Whether a version''s function takes the rows of a table as it is now.';
comment on function dbscore.publish_alias(text, integer, text) is 'Makes an alias''s functions call a version''s.';
comment on function dbscore.move_alias(text, integer, text, text, text) is 'Points an alias to a version.';
comment on function dbscore.promote(text, integer, text, text) is 'Points an alias, by default champion, to a version: select dbscore.promote(''churn'', 4).';
