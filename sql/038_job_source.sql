-- sql/038_job_source.sql: what a job reads: a table, a view or a query, and its columns that are the features.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0002
--
-- dbscore.source_columns(job) -> names, types           of a table, a view or a query
-- dbscore.feature_columns(signature, names, types, source) -> text[]    one column for each feature; ML002 where it does not fit

-- the rows of a plain table have a place, by which they can be told apart; those of anything else have a key only
create or replace function dbscore.is_plain_table(relation regclass) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return (
    select c.relkind in ('r', 'm') and a.amname = 'heap' and not exists (select from pg_inherits i where i.inhparent = c.oid)
    from pg_class c left join pg_am a on a.oid = c.relam where c.oid = relation
);

create or replace function dbscore.relation_columns(relation regclass, out names text[], out types text[])
language sql stable
set search_path = pg_catalog, pg_temp
as $function$
    select array_agg(a.attname::text order by a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) order by a.attnum)
    from pg_attribute a where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
$function$;

-- the source's columns as they are now; a query's by way of a view, which also refuses what is no single query
create or replace function dbscore.source_columns(job dbscore.job, out names text[], out types text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    if job.source_kind <> 'query' then
        select c.names, c.types into names, types from dbscore.relation_columns(job.source::regclass) c;
        return;
    end if;
    perform set_config('search_path', job.search_path, true);
    execute pg_catalog.format(E'create temporary view dbscore_job_source as %s\n', job.source);
    perform pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
    select c.names, c.types into names, types from dbscore.relation_columns('pg_temp.dbscore_job_source'::regclass) c;
    drop view pg_temp.dbscore_job_source;
end
$function$;

create or replace function dbscore.source_alias(job dbscore.job) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case when job.source_kind = 'query' then 'source_rows' else quote_ident((parse_ident(job.source))[2]) end;

-- the columns that hold a version's features, in their order; ML002 where one is not there or does not fit
create or replace function dbscore.feature_columns(signature jsonb, names text[], types text[], source text) returns text[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    feature jsonb;
    name text;
    type text;
    columns text[] := '{}';
    missing text[] := '{}';
begin
    for feature in select f from jsonb_array_elements(signature -> 'features') with ordinality as features (f, i) order by i
    loop
        name := case when feature ->> 'source' = any (names) then feature ->> 'source' else feature ->> 'name' end;
        type := regexp_replace(types[array_position(names, name)], '\(.*\)', '');
        if type is null then
            missing := missing || name;
        elsif feature ->> 'type' <> 'text'
            and (type in ('text', 'character varying', 'character', 'name') or type ~ '^(date|time|interval)'
                 or (feature ->> 'type' in ('smallint', 'integer', 'bigint') and type not in ('smallint', 'integer', 'bigint', 'boolean')))
        then
            raise exception 'column % of % is of type %, the feature % of type %', name, source, type, feature ->> 'name', feature ->> 'type'
            using errcode = 'ML002', hint = 'Cast it in a view or in the query.';
        end if;
        columns := columns || name;
    end loop;
    if missing <> '{}' then
        raise exception '% has no column for the feature%: %', source, case when cardinality(missing) > 1 then 's' else '' end, array_to_string(missing, ', ')
        using errcode = 'ML002', hint = 'Name a source that has a column for each feature, by its name.';
    end if;
    return columns;
end
$function$;

-- the source's columns that hold the features of a job's version
create or replace function dbscore.job_columns(job dbscore.job, signature jsonb) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant record := dbscore.source_columns(job);
begin
    return dbscore.feature_columns(signature, found.names, found.types, job.source);
end
$function$;
