-- sql/020_registry.sql: the registry as analysts and DBAs see it.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0001
--
-- A role sees the models that it may score; members of the owner see all, retired versions too.
--
-- dbscore.versions   one row per version
-- dbscore.models     one row per model, with its champion
-- dbscore.aliases    one row per alias

create or replace view dbscore.versions with (security_barrier) as
select
    m.name as model,
    v.number as version,
    m.name || ':' || v.number as reference,
    coalesce((select array_agg(a.name order by a.name) from dbscore.alias a where a.version_id = v.version_id), '{}') as aliases,
    v.status,
    v.engine,
    v.provenance ->> 'estimator' as estimator,
    v.provenance ->> 'precision' as "precision",
    v.signature ->> 'task' as task,
    array(select f ->> 'name' from jsonb_array_elements(v.signature -> 'features') with ordinality as features (f, i) order by i) as features,
    v.signature -> 'classes' as classes,
    v.metrics,
    (select sum(n::bigint) from jsonb_each_text(v.parity -> 'rows') as rows (origin, n)) as rows_compared,
    (select sum(n::bigint) from jsonb_each_text(v.parity -> 'mismatches') as rows (origin, n)) as mismatches,
    v.mismatch_accepted_by,
    v.sha256,
    (select a.size from dbscore.artifact a where a.sha256 = v.sha256) as bytes,
    v.created_by,
    v.created_at,
    v.signature,
    v.batch_engine,
    v.choice,
    (select i.models_schema from dbscore.installation i) as models_schema
from dbscore.version v
join dbscore.model m using (model_id)
where pg_has_role(current_user, (select nspowner from pg_namespace where nspname = 'dbscore'), 'member')
   or exists (
       select from pg_proc p
       join pg_namespace n on n.oid = p.pronamespace
       where n.nspname = (select i.models_schema from dbscore.installation i)
         and p.proname = m.name || '_v' || v.number
         and has_function_privilege(p.oid, 'execute')
   );

create or replace view dbscore.aliases with (security_barrier) as
select v.model, a.alias, v.version, v.model || case a.alias when 'champion' then '' else '@' || a.alias end as reference
from dbscore.versions v
cross join unnest(v.aliases) as a (alias);

create or replace view dbscore.models with (security_barrier) as
select
    m.name as model,
    m.description,
    max(v.version) filter (where 'champion' = any (v.aliases)) as champion,
    count(v.version) as versions,
    m.created_by,
    m.created_at
from dbscore.model m
join dbscore.versions v on v.model = m.name
group by m.model_id;

comment on view dbscore.versions is 'Versions that the current role may score: what each is, and how it compared with the native model.';
comment on view dbscore.aliases is 'Aliases and the versions they stand for.';
comment on view dbscore.models is 'Models that the current role may score.';
