-- sql/052_experiments.sql: the design of experiments: what is compared, for whom, with which weights.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     migrations/0005, sql/020_registry.sql, sql/050_assignment.sql
--
-- These functions act as the owner of the schema, and are granted to nobody: its members call them.
--
-- dbscore.create_experiment(name, unit, variants, ...)
--   unit         what the column is called that tells units apart, such as customer_id
--   variants     'control=tip:3:50', 'treatment=tip@challenger:50': a name, a version, the weight in percent. The first one
--                is the control. In shadow mode there are no weights
--   scheme       sha256 or growthbook2; salt: by default the experiment's name
--   layer        experiments of a layer share no unit; layer_share: how much of it, in percent, by default the largest part that is left
--   eligible     a condition on the features; other units get the control's prediction, and nothing is recorded
--   holdout      the share of units, from 0 to 1, that get the control's prediction and are compared with nothing
--   mode         ab, or shadow: all versions predict, the control's prediction is the answer
-- errors: ML001 no such version; ML002 the versions' features differ; ML003 a name; ML014 the rest

create or replace function dbscore.experiment_named(name text) returns dbscore.experiment
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    found dbscore.experiment;
    known text;
begin
    select * into found from dbscore.experiment e where e.name = experiment_named.name;
    if found.experiment_id is null then
        select string_agg(e.name, ', ' order by e.name) into known from dbscore.experiment e;
        raise exception 'there is no experiment %', quote_nullable(name)
        using errcode = 'ML001', hint = coalesce('Experiments: ' || known || '.', 'There is none yet: see dbscore.create_experiment().');
    end if;
    return found;
end
$function$;

-- the functions that an experiment has in the schema `experiments`
create or replace function dbscore.experiment_functions(name text) returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
return array(select name || suffix from unnest('{"",_variant,_assign,_exposure,_outcome,_table,_rows}'::text[]) suffix);

create or replace function dbscore.note_experiment(name text, action text, detail jsonb default '{}', reason text default '') returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $function$
    insert into dbscore.experiment_history (experiment, action, detail, reason) values (name, action, coalesce(detail, '{}'), coalesce(reason, ''))
$function$;

-- a percentage in ten thousandths
create or replace function dbscore.in_ten_thousandths(what text, percent text) returns integer
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
begin
    if percent !~ '^[0-9]{1,3}(\.[0-9]{1,2})?$' or percent::numeric > 100 then
        raise exception 'the % is %', what, quote_nullable(percent)
        using errcode = 'ML014', hint = 'Write a percentage from 0 to 100, with two decimals at most.';
    end if;
    return (percent::numeric * 100)::integer;
end
$function$;

create or replace function dbscore.refuse_weights(weights integer[]) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    total constant numeric := (select sum(w) from unnest(weights) w) / 100.0;
begin
    if total <> 100 then
        raise exception 'the weights sum to %, not to 100', trim_scale(total)
        using errcode = 'ML014', hint = 'Give each variant its percentage of the units.';
    end if;
end
$function$;

-- 'control=tip:3:50' taken apart; in shadow mode the weight may be missing
create or replace function dbscore.read_variant(variant text, mode text, out name text, out reference text, out weight integer)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $function$
declare
    parts constant text[] := regexp_match(variant, case mode
        when 'shadow' then '^([^=]*)=([^:@]+(?:@[^:]+|:[0-9]+)?)(?::([0-9.]+))?$'
        else '^([^=]*)=(.+):([^:]*)$' end);
begin
    if parts is null then
        raise exception 'the variant % cannot be read', quote_nullable(variant)
        using errcode = 'ML014', hint = case mode when 'shadow' then 'Write name=version, such as control=tip:3.'
            else 'Write name=version:weight, such as control=tip:3:50 or treatment=tip@challenger:50.' end;
    end if;
    name := parts[1];
    reference := parts[2];
    if name !~ '^[a-z_][a-z0-9_]{0,47}$' or name = 'holdout' then
        raise exception 'a variant cannot be called %', quote_literal(name)
        using errcode = 'ML003', hint = 'Use lower-case letters, digits and underscores; holdout is the name of the units that are held out.';
    end if;
    weight := case when parts[3] is null then 0 else dbscore.in_ten_thousandths('weight of variant ' || name, parts[3]) end;
end
$function$;

-- raises where a version cannot stand beside the control: other features, another kind of prediction, no functions
create or replace function dbscore.refuse_variant(variant text, version record, control record) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $function$
declare
    own constant jsonb := (select jsonb_object_agg(f ->> 'name', f ->> 'type') from jsonb_array_elements(version.signature -> 'features') f);
    first constant jsonb := (select jsonb_object_agg(f ->> 'name', f ->> 'type') from jsonb_array_elements(control.signature -> 'features') f);
    predicted constant jsonb := version.signature #> '{outputs,0}';
    problem text;
begin
    problem := concat_ws('; ',
        (select 'it lacks ' || string_agg(k, ', ') from jsonb_object_keys(first) k where not own ? k),
        (select 'it has ' || string_agg(k, ', ') || ' besides' from jsonb_object_keys(own) k where not first ? k),
        (select string_agg(format('%s is of type %s, not %s', k, own ->> k, first ->> k), ', ') from jsonb_object_keys(own) k where own ->> k <> first ->> k));
    if problem <> '' then
        raise exception 'variant % (%) does not take the features of the control (%): %', variant, version.reference, control.reference, problem
        using errcode = 'ML002', hint = 'All variants are asked with the same features: deploy a version that takes them.';
    end if;
    if predicted ->> 'type' <> control.signature #>> '{outputs,0,type}'
        or version.signature -> 'classes' is distinct from control.signature -> 'classes'
    then
        raise exception 'variant % (%) predicts %, the control (%) %', variant, version.reference,
            coalesce(version.signature ->> 'classes', predicted ->> 'type'), control.reference,
            coalesce(control.signature ->> 'classes', control.signature #>> '{outputs,0,type}')
        using errcode = 'ML014', hint = 'Versions are compared that predict the same.';
    elsif predicted ->> 'type' like '%[]' then
        raise exception 'variant % (%) predicts several numbers at once, of type %', variant, version.reference, predicted ->> 'type'
        using errcode = 'ML014', hint = 'Experiments record one number or one class for a unit.';
    elsif not exists (
        select from pg_proc p where p.pronamespace = to_regnamespace(quote_ident(version.models_schema))
        and p.proname = format('%s_v%s', version.model, version.version))
    then
        raise exception 'this server cannot score variant % (%)', variant, version.reference
        using errcode = 'ML009', hint = 'It has no PL/Python, and the version is not compiled to SQL.';
    end if;
end
$function$;

-- a part of a layer that no experiment has: the first gap that is large enough; without a share, the largest
create or replace function dbscore.claim_layer(layer text, scheme text, share integer, out lower_bound integer, out upper_bound integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    other text;
    gap record;
    largest integer := 0;
begin
    select format('%s of scheme %s', e.name, e.scheme) into other from dbscore.experiment e
    where e.layer = claim_layer.layer and e.status <> 'concluded' and e.scheme <> claim_layer.scheme limit 1;
    if other is not null then
        raise exception 'layer % has experiment %', quote_literal(layer), other
        using errcode = 'ML014', hint = 'The experiments of a layer divide its units by one scheme.';
    elsif scheme = 'growthbook2' and share % 10 <> 0 then
        raise exception 'the share of the layer is %', trim_scale(share / 100.0)
        using errcode = 'ML014', hint = 'A layer of scheme growthbook2 has a thousand parts: take a share with one decimal.';
    end if;
    for gap in
        select place, size from (
            select e.layer_to as place, lead(e.layer_from) over (order by e.layer_from, e.layer_to) - e.layer_to as size
            from (select e.layer_from, e.layer_to from dbscore.experiment e where e.layer = claim_layer.layer and e.status <> 'concluded'
                  union all values (0, 0), (10000, 10000)) e
        ) gaps where size > 0 order by case when share is null then -size end, place
    loop
        if lower_bound is null and gap.size >= coalesce(share, 1) then
            lower_bound := gap.place;
            upper_bound := gap.place + coalesce(share, gap.size);
        end if;
        largest := greatest(largest, gap.size);
    end loop;
    if lower_bound is null then
        raise exception 'layer % has % percent left', quote_literal(layer), trim_scale(largest / 100.0)
        using errcode = 'ML014', hint = 'Conclude an experiment of it, or take a smaller layer_share.';
    end if;
end
$function$;

create or replace function dbscore.create_experiment(
    name text, unit text, variants text[], mode text default 'ab', scheme text default 'sha256', salt text default null, layer text default null,
    layer_share double precision default null, eligible text default null, holdout double precision default 0, record_features boolean default false,
    description text default ''
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
#variable_conflict use_column
declare
    made integer;
    control record;
    version record;
    resolved record;
    read record;
    given text;
    place integer := 0;
    names text[] := '{}';
    weights integer[] := '{}';
    layer_from integer;
    layer_to integer;
begin
    -- one at a time: names and layers are taken
    lock table dbscore.experiment in share row exclusive mode;
    if name is null or name !~ '^[a-z_][a-z0-9_]{0,47}$' then
        raise exception 'an experiment cannot be called %', quote_nullable(name)
        using errcode = 'ML003', hint = 'Use lower-case letters, digits and underscores, 48 at most, not beginning with a digit.';
    end if;
    select e.name into given from dbscore.experiment e
    where dbscore.experiment_functions(e.name) || (e.name || '_log') && (dbscore.experiment_functions(create_experiment.name) || (create_experiment.name || '_log')) limit 1;
    if given is not null then
        raise exception 'the functions of % would have names that those of experiment % have', quote_literal(name), given
        using errcode = 'ML003', hint = 'Choose another name.';
    elsif unit is null or unit = '' or octet_length(unit) > 63 then
        raise exception 'units cannot be told apart by %', quote_nullable(unit)
        using errcode = 'ML014', hint = 'Name the column that tells them apart, such as customer_id.';
    elsif mode is null or mode not in ('ab', 'shadow') then
        raise exception 'there is no mode %', quote_nullable(mode) using errcode = 'ML014', hint = 'It is ab or shadow.';
    elsif scheme is null or scheme not in ('sha256', 'growthbook2') then
        raise exception 'there is no scheme %', quote_nullable(scheme) using errcode = 'ML014', hint = 'It is sha256 or growthbook2.';
    elsif salt = '' or layer = '' then
        raise exception 'the % is empty', case when salt = '' then 'salt' else 'layer' end using errcode = 'ML014', hint = 'Leave it out, or give it a text.';
    elsif holdout is null or not (holdout >= 0 and holdout < 1) or abs(holdout * 10000 - round(holdout * 10000)) > 1e-6 then
        raise exception 'the holdout is %', coalesce(holdout::text, 'NULL')
        using errcode = 'ML014', hint = 'It is a share of the units, from 0 to less than 1, with four decimals at most.';
    elsif layer_share is not null and (layer is null or not (layer_share > 0 and layer_share <= 100) or abs(layer_share * 100 - round(layer_share * 100)) > 1e-6) then
        raise exception 'the share of the layer is %', layer_share
        using errcode = 'ML014', hint = 'Name a layer, and a percentage of it, from 0.01 to 100.';
    elsif variants is null or cardinality(variants) < 2 then
        raise exception 'an experiment of % has nothing to compare', case coalesce(cardinality(variants), 0) when 1 then '1 variant' else '0 variants' end
        using errcode = 'ML014', hint = 'Name two variants or more, the control first: control=tip:3:50 treatment=tip@challenger:50.';
    end if;
    if layer is not null then
        select p.lower_bound, p.upper_bound into layer_from, layer_to from dbscore.claim_layer(layer, scheme, (layer_share * 100)::integer) p;
    end if;
    insert into dbscore.experiment (name, description, mode, unit_name, scheme, salt, layer, layer_from, layer_to, eligible, holdout, records_features)
    values (create_experiment.name, coalesce(create_experiment.description, ''), create_experiment.mode, unit, create_experiment.scheme,
            coalesce(create_experiment.salt, create_experiment.name), create_experiment.layer,
            layer_from, layer_to, create_experiment.eligible, (create_experiment.holdout * 10000)::integer, coalesce(record_features, false))
    returning experiment_id into made;
    foreach given in array variants
    loop
        place := place + 1;
        select * into read from dbscore.read_variant(given, mode);
        if read.name = any (names) then
            raise exception 'there are two variants %', quote_literal(read.name) using errcode = 'ML003', hint = 'Each has a name of its own.';
        end if;
        select * into resolved from dbscore.resolve(read.reference);
        -- it cannot be retired meanwhile
        perform from dbscore.model m where m.name = resolved.model for share;
        select v.*, w.version_id into version from dbscore.versions v
        join dbscore.model m on m.name = v.model join dbscore.version w on w.model_id = m.model_id and w.number = v.version
        where v.model = resolved.model and v.version = resolved.version;
        if place = 1 then
            control := version;
        end if;
        perform dbscore.refuse_variant(read.name, version, control);
        insert into dbscore.variant (experiment_id, number, name, version_id) values (made, place, read.name, version.version_id);
        names := names || read.name;
        weights := weights || read.weight;
    end loop;
    if mode = 'shadow' then
        weights := array[10000] || array_fill(0, array[place - 1]);
    end if;
    perform dbscore.refuse_weights(weights);
    insert into dbscore.allocation (experiment_id, number, weights, boundaries)
    values (made, 1, weights, dbscore.boundaries(create_experiment.scheme, weights));
    perform dbscore.note_experiment(name, 'create', jsonb_build_object('variants', variants));
    perform dbscore.publish_experiment(made);
end
$function$;

comment on function dbscore.experiment_named(text) is 'An experiment''s row.';
comment on function dbscore.experiment_functions(text) is 'The names of the functions that an experiment has.';
comment on function dbscore.note_experiment(text, text, jsonb, text) is 'Notes what was done to an experiment, by whom and when.';
comment on function dbscore.in_ten_thousandths(text, text) is 'A percentage in ten thousandths.';
comment on function dbscore.refuse_weights(integer[]) is 'Raises an error where weights do not sum to 100 percent.';
comment on function dbscore.read_variant(text, text) is 'A variant''s text taken apart.';
comment on function dbscore.refuse_variant(text, record, record) is 'Raises an error where a version cannot stand beside the control.';
comment on function dbscore.claim_layer(text, text, integer) is 'A part of a layer that no experiment has.';
comment on function dbscore.create_experiment(text, text, text[], text, text, text, text, double precision, text, double precision, boolean, text) is
    'Drafts an experiment: select dbscore.create_experiment(''tip_test'', ''customer_id'', array[''control=tip:3:50'', ''treatment=tip@challenger:50'']).';
