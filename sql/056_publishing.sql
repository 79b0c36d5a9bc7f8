-- sql/056_publishing.sql: the functions and the view that each experiment has in the schema `experiments`.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/052_experiments.sql, sql/054_exposure.sql
--
-- dbscore.variant_details           variants with their versions; for the owner
-- dbscore.experiments               one row per experiment that the current role may use
-- dbscore.publish_experiment(id)    makes an experiment's functions and its view, or replaces them by the same
-- dbscore.publish_experiments()     all of them, after an upgrade
-- dbscore.grant_experiment(name, role), revoke_experiment(name, role)

create or replace view dbscore.variant_details as
select
    t.experiment_id, t.number, t.name, t.version_id, v.model, v.version, v.reference, v.status, v.signature, v.models_schema,
    v.signature #>> '{outputs,0,type}' as type,
    v.signature @> '{"outputs": [{"kind": "probabilities"}]}' as has_probabilities,
    case when to_regprocedure(format('dbscore_engine.%I()', v.model || '_v' || v.version || '_pin')) is null then 'sql' else v.engine end as engine,
    case when dbscore.is_compiled(v.model, v.version) then 'sql' else 'onnx' end as batch_engine
from dbscore.variant t
join dbscore.version w using (version_id)
join dbscore.model m using (model_id)
join dbscore.versions v on v.model = m.name and v.version = w.number;

create or replace view dbscore.experiments with (security_barrier) as
select
    e.name as experiment, e.description, e.mode, e.status, e.unit_name as unit, e.scheme, e.salt, e.layer, e.layer_from, e.layer_to, e.eligible,
    e.holdout / 1e4::float8 as holdout, e.winner,
    (select jsonb_agg(jsonb_build_object(
         'name', t.name, 'version', m.name || ':' || w.number,
         'weight', (select trim_scale(l.weights[t.number] / 100.0) from dbscore.allocation l where l.experiment_id = e.experiment_id order by l.number desc limit 1)) order by t.number)
     from dbscore.variant t join dbscore.version w using (version_id) join dbscore.model m using (model_id) where t.experiment_id = e.experiment_id) as variants,
    (select w.signature -> 'features' from dbscore.variant t join dbscore.version w using (version_id) where t.experiment_id = e.experiment_id and t.number = 1) as features,
    e.records_features, e.created_by, e.created_at, e.started_at, e.concluded_at, e.counted_xact, e.experiment_id
from dbscore.experiment e
where pg_has_role(current_user, (select nspowner from pg_namespace where nspname = 'dbscore'), 'member')
   or has_function_privilege(to_regprocedure(format('experiments.%I(text)', e.name || '_assign')), 'execute');

-- how an argument that would have the name of a result is called
create or replace function dbscore.argument_name(name text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return name || case when name in ('variant', 'version', 'prediction', 'probabilities', 'request_id') then '_' else '' end;

create or replace function dbscore.publish_experiment(experiment_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    e dbscore.experiment;
    control record;
    period dbscore.allocation;
    features jsonb;
    arguments text;
    types text;
    results text;
    answered text;
    routine text;
    body text;
    given record;
    row_values text;
    role text;
begin
    select x.* into e from dbscore.experiment x where x.experiment_id = publish_experiment.experiment_id;
    select d.* into control from dbscore.variant_details d where d.experiment_id = publish_experiment.experiment_id and d.number = 1;
    select l.* into period from dbscore.allocation l where l.experiment_id = publish_experiment.experiment_id order by l.number desc limit 1;
    features := control.signature -> 'features';
    if features @> jsonb_build_array(jsonb_build_object('name', e.unit_name)) then
        raise exception 'the unit is called as a feature is: %', e.unit_name
        using errcode = 'ML003', hint = 'Give the argument for the unit another name: units may come from a column of any name.';
    elsif jsonb_array_length(features) > 97 then
        raise exception 'the versions take % features, and the function of an experiment at most 97', jsonb_array_length(features)
        using errcode = 'ML014', hint = 'Combine features into arrays: a vector is one feature.';
    end if;
    perform dbscore.refuse_condition(e, features);
    arguments := (select string_agg(format('%I %s', dbscore.argument_name(f ->> 'name'), f ->> 'type'), ', ' order by i) from jsonb_array_elements(features) with ordinality as listed (f, i));
    types := (select string_agg(f ->> 'type', ', ' order by i) from jsonb_array_elements(features) with ordinality as listed (f, i));
    results := format('table (variant text, version integer, prediction %s%s)', control.type, case when control.has_probabilities then ', probabilities double precision[]' else '' end);
    answered := dbscore.prediction_text(control.type, 'p') || case when control.has_probabilities then ', p.probabilities' else '' end;

    -- one unit
    execute format('create or replace function experiments.%I(%I text, %s, request_id text default null) returns %s language plpgsql volatile security definer'
                   ' set search_path = pg_catalog, pg_temp rows 1 as %L',
                   e.name, dbscore.argument_name(e.unit_name), arguments, results, dbscore.exposing_body(e, features, answered));
    -- a number for a unit
    execute format('create or replace function experiments.%I(%I bigint, %s, request_id text default null) returns %s language sql volatile rows 1 as %L',
                   e.name, dbscore.argument_name(e.unit_name), arguments, results,
                   format('select * from experiments.%I($1::text, %s)', e.name,
                          (select string_agg('$' || i, ', ' order by i) from generate_series(2, jsonb_array_length(features) + 2) i)));
    -- rows of the tables that the control takes
    for given in
        select c.oid as relation, format('%I.%I', t ->> 0, t ->> 1) as type, r.names
        from dbscore.model m cross join jsonb_array_elements(m.tables) t
        join pg_namespace n on n.nspname = t ->> 0 join pg_class c on c.relnamespace = n.oid and c.relname = t ->> 1
        cross join dbscore.relation_columns(c.oid) r
        where m.name = control.model and e.unit_name = any (r.names)
    loop
        row_values := (select string_agg(format('($1).%I::%s', case when f ->> 'source' = any (given.names) then f ->> 'source' else f ->> 'name' end, f ->> 'type'), ', ' order by i)
            from jsonb_array_elements(features) with ordinality as listed (f, i)
            having bool_and(f ->> 'source' = any (given.names) or f ->> 'name' = any (given.names)));
        continue when row_values is null;
        execute format('create or replace function experiments.%I(%s, request_id text default null) returns %s language sql volatile rows 1 as %L',
                       e.name, given.type, results, format('select * from experiments.%I(($1).%I::text, %s, $2)', e.name, e.unit_name, row_values));
    end loop;
    execute format('create or replace function experiments.%I(%I text) returns text language plpgsql stable security definer set search_path = pg_catalog, pg_temp as %L',
                   e.name || '_assign', e.unit_name, format('begin return dbscore.assigned_variant(%s, $1); end', e.experiment_id));
    -- a query's own expression, with the weights of now in it
    execute format('create or replace function experiments.%I(%I text) returns text language sql immutable parallel safe return %s',
                   e.name || '_variant', e.unit_name, dbscore.drawing_text(e, period.boundaries, '$1'));
    execute format('create or replace function experiments.%I(unit text, variant text, at timestamptz) returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
                   e.name || '_exposure', format('begin perform dbscore.note_assignment(%s, $1, $2, $3); end', e.experiment_id));
    -- until 0005 it was passed a relation of the caller's
    execute format('drop function if exists experiments.%I(regclass, text)', e.name || '_rows');
    execute format('create or replace function experiments.%I(caller name) returns void language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
                   e.name || '_table', format('begin perform dbscore.make_rows(%s, $1); end', e.experiment_id));
    execute format('create or replace function experiments.%I(request_id text) returns bigint language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
                   e.name || '_rows', format('begin return dbscore.run_rows(%s, $1); end', e.experiment_id));
    execute format('create or replace function experiments.%I(unit text, metric text, value double precision, at timestamptz, denominator double precision, label text) returns void'
                   ' language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
                   e.name || '_outcome', format('begin perform dbscore.note_outcome(%s, $1, $2, $3, $4, $5, $6); end', e.experiment_id));
    execute format('create or replace view experiments.%I with (security_barrier) as'
                   ' select p.unit as %I, case p.variant when 0 then ''holdout'' else v.name end as variant, m.name || '':'' || w.number as version, p.engine, p.is_served, %s as prediction,'
                   ' p.probabilities, %s as propensity, l.number as allocation, a.assigned_at, a.forced_by is not null as is_forced, p.request_id, p.features, p.predicted_at'
                   ' from dbscore.prediction p join dbscore.assignment a using (experiment_id, unit) join dbscore.allocation l using (allocation_id)'
                   ' left join dbscore.variant v on v.experiment_id = p.experiment_id and v.number = p.variant join dbscore.version w on w.version_id = p.version_id join dbscore.model m using (model_id)'
                   ' where p.experiment_id = %s',
                   e.name || '_log', e.unit_name || case when e.unit_name in ('variant', 'version', 'engine', 'is_served', 'prediction', 'probabilities', 'propensity', 'allocation',
                       'assigned_at', 'is_forced', 'request_id', 'features', 'predicted_at') then '_' else '' end,
                   dbscore.prediction_text(control.type, 'p'), dbscore.propensity_text(e), e.experiment_id);
    execute format('comment on view experiments.%I is %L', e.name || '_log', format('What experiment %s predicted: a row for each prediction.', e.name));
    for routine in
        select p.oid::regprocedure::text from pg_proc p where p.pronamespace = to_regnamespace('experiments')
        and p.proname = any (dbscore.experiment_functions(e.name))
    loop
        execute format('revoke all on function %s from public', routine);
        execute format('comment on function %s is %L', routine, format('Experiment %s: %s.', e.name, case
            when routine like '%\_variant(%' then 'the variant that a new unit gets now'
            when routine like '%\_assign(%' then 'the variant that a unit has, or would get'
            when routine like '%\_exposure(%' then 'records the variant that a unit has seen elsewhere'
            when routine like '%\_outcome(%' then 'records what came of a unit'
            when routine like '%\_table(%' or routine like '%\_rows(%' then 'what dbscore.run_experiment calls'
            else 'assigns a unit, predicts for it, and records both' end));
        -- a form that is new is for those who have the others
        for role in
            select distinct r.rolname from pg_proc p cross join aclexplode(p.proacl) a join pg_roles r on r.oid = a.grantee
            where p.oid = to_regprocedure(format('experiments.%I(text)', e.name || '_assign')) and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner
        loop
            execute format('grant execute on function %s to %I', routine, role);
        end loop;
    end loop;
end
$function$;

-- raises where an experiment's condition is none on its features
create or replace function dbscore.refuse_condition(experiment dbscore.experiment, features jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
begin
    if experiment.eligible is not null then
        execute format(E'select pg_catalog.bool_and((%s\n)) from (select %s) as features where false', experiment.eligible,
            (select string_agg(format('null::%s as %I', f ->> 'type', f ->> 'name'), ', ') from jsonb_array_elements(features) f));
    end if;
exception when syntax_error_or_access_rule_violation or data_exception then
    raise exception 'the condition % is none on the features: %', quote_literal(experiment.eligible), sqlerrm
    using errcode = 'ML014', hint = 'Write a SQL condition on the features, such as distance < 30.';
end
$function$;

-- how likely a unit, of an assignment a with an allocation l, was to get its variant
create or replace function dbscore.propensity_text(experiment dbscore.experiment) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case experiment.mode when 'shadow' then '1::float8'
    else format('case when a.forced_by is not null then 1 else dbscore.propensity(a.variant, l.weights, %s) end', experiment.holdout) end;

-- a recorded prediction in its type
create or replace function dbscore.prediction_text(type text, row_name text) returns text
language sql immutable
set search_path = pg_catalog, pg_temp
return case type when 'text' then row_name || '.label' when 'boolean' then row_name || '.prediction::integer::boolean' else format('%s.prediction::%s', row_name, type) end;

-- what draws a new unit's variant, as text
create or replace function dbscore.drawing_text(experiment dbscore.experiment, boundaries integer[], unit text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return format('case%s%s else (%L::text[])[dbscore.variant_at(%L, dbscore.bucket(%L, %L, %s))] end',
    case when experiment.layer is not null then format(' when dbscore.layer_bucket(%L, %L, %s) not between %s and %s then null',
        experiment.scheme, experiment.layer, unit, experiment.layer_from, experiment.layer_to - 1) else ' when false then null' end,
    case when experiment.holdout > 0 then format(' when dbscore.is_held_out(%L, %L, %s, %s) then ''holdout''', experiment.scheme, experiment.salt, unit, experiment.holdout) else '' end,
    (select array_agg(v.name order by v.number) from dbscore.variant v where v.experiment_id = experiment.experiment_id),
    boundaries, experiment.scheme, experiment.salt, unit);

-- the body of the function that takes one unit: $1 the unit, then the features
create or replace function dbscore.exposing_body(experiment dbscore.experiment, features jsonb, answered text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    last_argument constant text := '$' || jsonb_array_length(features) + 2;
    places constant jsonb := (select jsonb_object_agg(f ->> 'name', i + 1) from jsonb_array_elements(features) with ordinality as listed (f, i));
    given constant text := (select string_agg(format('$%s as %I', i + 1, f ->> 'name'), ', ' order by i) from jsonb_array_elements(features) with ordinality as listed (f, i));
    is_shadow constant boolean := experiment.mode = 'shadow';
    computed text[] := '{}';
    v record;
    statements text;
    recording text;
begin
    for v in select d.* from dbscore.variant_details d where d.experiment_id = experiment.experiment_id order by d.number
    loop
        statements := (
            select format(E'prediction := %1$I.%2$I(%3$s);\n%4$s', v.models_schema, v.model || '_v' || v.version, listed.arguments,
                case when v.has_probabilities then format(E'probabilities := %I.%I(%s);\n', v.models_schema, v.model || '_v' || v.version || '_proba', listed.arguments) else '' end)
            from (select string_agg('$' || (places ->> (f ->> 'name')), ', ' order by i) as arguments
                  from jsonb_array_elements(v.signature -> 'features') with ordinality as features (f, i)) listed);
        recording := format(
            E'insert into dbscore.prediction (experiment_id, unit, variant, version_id, engine, is_served, %s, probabilities, request_id, features, predicted_at)'
            ' values (%s, $1, %s, %s, %L, %s, %s, %s, %s, %s, asked_at);\n',
            case v.type when 'text' then 'label' else 'prediction' end, experiment.experiment_id,
            case when is_shadow then v.number::text else 'drawn' end, v.version_id, v.engine,
            case when is_shadow then format('%s = greatest(drawn, 1)', v.number) else 'true' end,
            case v.type when 'text' then 'prediction' when 'boolean' then 'prediction::integer' else 'prediction::float8' end,
            case when v.has_probabilities then 'probabilities' else 'null' end, last_argument,
            case when experiment.records_features then format('(select to_jsonb(asked) from (select %s) asked)', given) else 'null' end);
        computed := computed || (format(E'if %s then\n', case
                when v.number = 1 then case when is_shadow then 'true' else 'coalesce(drawn, 0) <= 1' end
                when is_shadow then 'drawn is not null' else 'drawn = ' || v.number end)
            || statements
            || format(E'if drawn is not null then\n%send if;\n', recording)
            || format(E'if %s then\nvariant := case when drawn = 0 then ''holdout'' when drawn is not null then %L end;\nversion := %s;\nreturn next;\nend if;\n',
                   case when is_shadow then format('greatest(coalesce(drawn, 1), 1) = %s', v.number) else 'true' end, v.name, v.version)
            || E'end if;\n');
    end loop;
    return format($body$
#variable_conflict use_column
declare
    asked_at constant timestamptz := clock_timestamp();
    answered_at timestamptz;
    drawn integer;
begin
    if %1$s is not null then
        answered_at := dbscore.claim_request(%2$s, $1, %1$s, asked_at);
        if answered_at is not null then
            return query select case p.variant when 0 then 'holdout' else v.name end, w.number, %3$s
            from dbscore.prediction p join dbscore.version w using (version_id)
            left join dbscore.variant v on v.experiment_id = p.experiment_id and v.number = p.variant
            where p.experiment_id = %2$s and p.unit = $1 and p.predicted_at = answered_at and p.request_id = %1$s and p.is_served;
            if found then
                return;
            end if;
        end if;
    end if;
    drawn := dbscore.expose(%2$s, $1, %4$s, asked_at);
%5$send
$body$,
        last_argument, experiment.experiment_id, answered,
        case when experiment.eligible is null then 'true' else format(E'(select coalesce((%s\n), false) from (select %s) features)', experiment.eligible, given) end,
        array_to_string(computed, ''));
end
$function$;

create or replace function dbscore.publish_experiments() returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    made integer;
    published integer := 0;
begin
    for made in select e.experiment_id from dbscore.experiment e where e.status <> 'concluded' order by e.experiment_id
    loop
        perform dbscore.publish_experiment(made);
        published := published + 1;
    end loop;
    return published;
end
$function$;

create or replace function dbscore.grant_experiment(name text, role text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_named(name);
    routine regprocedure;
begin
    if to_regrole(quote_ident(role)) is null then
        raise exception 'there is no role %', quote_nullable(role) using errcode = 'ML001', hint = 'Create it first.';
    end if;
    execute format('grant usage on schema dbscore, experiments to %I', role);
    for routine in
        select p.oid from pg_proc p where p.pronamespace = to_regnamespace('experiments')
        and p.proname = any (dbscore.experiment_functions(name))
        union all select 'dbscore.assign(text, text)'::regprocedure
        union all select 'dbscore.run_experiment(text, text, text, text, bigint)'::regprocedure
        union all select 'dbscore.rows_of_experiment(text, text, text)'::regprocedure
        union all select p.oid from pg_proc p where p.pronamespace = to_regnamespace('dbscore')
            and p.proname in ('record_outcome', 'record_assignment', 'bucket', 'layer_bucket', 'sha256_bucket', 'fnv1a', 'is_held_out', 'variant_at', 'boundaries', 'outcome_function',
                'propensity', 'is_quality', 'upper_gamma', 'normal_p', 'chi_square_p')
    loop
        execute format('grant execute on routine %s to %I', routine, role);
    end loop;
    execute format('grant select on experiments.%I to %I', name || '_log', role);
    execute format('grant select on dbscore.experiments, dbscore.experiment_assignments, dbscore.experiment_predictions, dbscore.experiment_outcomes,'
                   ' dbscore.experiment_daily, dbscore.experiment_summary, dbscore.experiment_results to %I', role);
    perform dbscore.note_experiment(name, 'grant', to_jsonb(role));
end
$function$;

create or replace function dbscore.revoke_experiment(name text, role text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_named(name);
    routine regprocedure;
begin
    if to_regrole(quote_ident(role)) is null then
        raise exception 'there is no role %', quote_nullable(role) using errcode = 'ML001', hint = 'See pg_roles.';
    end if;
    for routine in
        select p.oid from pg_proc p where p.pronamespace = to_regnamespace('experiments')
        and p.proname = any (dbscore.experiment_functions(name))
    loop
        execute format('revoke execute on function %s from %I', routine, role);
    end loop;
    execute format('revoke select on experiments.%I from %I', name || '_log', role);
    perform dbscore.note_experiment(name, 'revoke', to_jsonb(role));
end
$function$;

comment on view dbscore.variant_details is 'Variants with their versions.';
comment on view dbscore.experiments is 'Experiments that the current role may use: what each is, and its variants.';
comment on function dbscore.argument_name(text) is 'How an argument is called that would have the name of a result.';
comment on function dbscore.publish_experiment(integer) is 'Makes an experiment''s functions and its view.';
comment on function dbscore.publish_experiments() is 'Makes the functions and views of all experiments anew.';
comment on function dbscore.refuse_condition(dbscore.experiment, jsonb) is 'Raises an error where an experiment''s condition is none on its features.';
comment on function dbscore.prediction_text(text, text) is 'A recorded prediction in its type, as text.';
comment on function dbscore.propensity_text(dbscore.experiment) is 'How likely a unit was to get its variant, as text.';
comment on function dbscore.drawing_text(dbscore.experiment, integer[], text) is 'What draws a new unit''s variant, as text.';
comment on function dbscore.exposing_body(dbscore.experiment, jsonb, text) is 'The body of the function that takes one unit.';
comment on function dbscore.grant_experiment(text, text) is 'Lets a role use an experiment: its functions and its views.';
comment on function dbscore.revoke_experiment(text, text) is 'Takes from a role what grant_experiment gave.';
comment on column dbscore.experiments.experiment is 'Its name, which its functions have too.';
comment on column dbscore.experiments.description is 'What it is for.';
comment on column dbscore.experiments.mode is 'ab, or shadow: all versions predict, the control''s prediction is the answer.';
comment on column dbscore.experiments.status is 'draft, running, paused or concluded.';
comment on column dbscore.experiments.unit is 'What the column is called that tells units apart.';
comment on column dbscore.experiments.scheme is 'What draws the variants: sha256 or growthbook2.';
comment on column dbscore.experiments.salt is 'What is hashed with the unit.';
comment on column dbscore.experiments.layer is 'The layer, whose experiments share no unit; NULL where it is in none.';
comment on column dbscore.experiments.layer_from is 'The first bucket of the layer, of 10,000, that it has.';
comment on column dbscore.experiments.layer_to is 'The first bucket beyond.';
comment on column dbscore.experiments.eligible is 'A condition on the features; NULL where every unit is eligible.';
comment on column dbscore.experiments.holdout is 'The share of units, from 0 to 1, that are compared with nothing.';
comment on column dbscore.experiments.winner is 'The variant that it was concluded with.';
comment on column dbscore.experiments.variants is 'The control first: name, version and the weight of now, in percent.';
comment on column dbscore.experiments.features is 'The control''s features: name, type and where they come from.';
comment on column dbscore.experiments.records_features is 'Whether the features are recorded with each prediction.';
comment on column dbscore.experiments.created_by is 'Who made it.';
comment on column dbscore.experiments.created_at is 'When it was made.';
comment on column dbscore.experiments.started_at is 'When it first started.';
comment on column dbscore.experiments.concluded_at is 'When it ended.';
comment on column dbscore.experiments.counted_xact is 'The number of the transaction up to which its sums by day are counted; NULL where they are not.';
comment on column dbscore.experiments.experiment_id is 'Its number.';
