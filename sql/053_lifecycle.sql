-- sql/053_lifecycle.sql: what becomes of experiments: draft, running, paused, concluded.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/052_experiments.sql, sql/025_promotion.sql
--
-- These functions act as the owner of the schema, and are granted to nobody: its members call them.
--
-- dbscore.start_experiment(name), pause_experiment, stop_experiment; start also goes on after a pause
-- dbscore.ramp_experiment(name, weights, reason)     'control=20', 'treatment=80': for units that are assigned from now on
-- dbscore.conclude_experiment(name, winner, reason)  and promote the winner's version, in the same transaction
-- dbscore.drop_experiment(name)                      with everything that it recorded
-- dbscore.make_partitions()                          the tables of predictions, month by month
-- errors: ML001 no such experiment or variant; ML014 its status is another, or the weights are none

-- the experiment, its row locked, where its status is one of those; ML014 otherwise
create or replace function dbscore.experiment_in(name text, statuses text[], wanted text) returns dbscore.experiment
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $function$
declare
    found dbscore.experiment;
begin
    perform from dbscore.experiment e where e.name = experiment_in.name for update;
    found := dbscore.experiment_named(name);
    if found.status <> all (statuses) then
        raise exception 'experiment % is %, and cannot be %', name, found.status, wanted
        using errcode = 'ML014', hint = 'An experiment goes from draft to running, to paused and back, and to concluded.';
    end if;
    return found;
end
$function$;

create or replace function dbscore.start_experiment(name text, reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{draft,paused}', 'started');
    retired text;
begin
    -- none can be retired meanwhile
    perform from dbscore.model m join dbscore.version w using (model_id) join dbscore.variant v using (version_id)
    where v.experiment_id = found.experiment_id for share of m;
    retired := (
        select string_agg(format('%s (%s)', v.name, r.reference), ', ' order by v.number)
        from dbscore.variant v join dbscore.version w using (version_id) join dbscore.model m using (model_id)
        join dbscore.versions r on r.model = m.name and r.version = w.number
        where v.experiment_id = found.experiment_id and r.status <> 'active');
    if retired is not null then
        raise exception 'experiment % has a retired version: %', name, retired
        using errcode = 'ML014', hint = 'Deploy it again, or create an experiment of versions that are active.';
    end if;
    perform dbscore.make_partitions();
    if found.status = 'draft' then
        -- what is drafted counts from its start
        update dbscore.allocation a set valid_from = clock_timestamp() where a.experiment_id = found.experiment_id;
    end if;
    update dbscore.experiment e set status = 'running', started_at = coalesce(e.started_at, clock_timestamp()) where e.experiment_id = found.experiment_id;
    perform dbscore.note_experiment(name, 'start', reason => reason);
end
$function$;

create or replace function dbscore.pause_experiment(name text, reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{running}', 'paused');
begin
    update dbscore.experiment e set status = 'paused' where e.experiment_id = found.experiment_id;
    perform dbscore.note_experiment(name, 'pause', reason => reason);
end
$function$;

create or replace function dbscore.ramp_experiment(name text, weights text[], reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{draft,running,paused}', 'ramped');
    names constant text[] := array(select v.name from dbscore.variant v where v.experiment_id = found.experiment_id order by v.number);
    made integer[] := array_fill(null::integer, array[cardinality(names)]);
    given text;
    place integer;
begin
    if found.mode = 'shadow' then
        raise exception 'experiment % is in shadow mode, and has no weights', name using errcode = 'ML014', hint = 'All its versions predict for every unit.';
    end if;
    foreach given in array coalesce(weights, '{}')
    loop
        place := array_position(names, split_part(given, '=', 1));
        if place is null then
            raise exception 'experiment % has no variant %', name, quote_literal(split_part(given, '=', 1))
            using errcode = 'ML001', hint = format('Its variants: %s.', array_to_string(names, ', '));
        end if;
        if made[place] is not null then
            raise exception 'variant % has two weights', names[place] using errcode = 'ML014', hint = 'Write each variant once.';
        end if;
        made[place] := dbscore.in_ten_thousandths('weight of variant ' || names[place], substr(given, strpos(given, '=') + 1));
    end loop;
    if array_position(made, null) is not null then
        raise exception 'variant % has no weight', names[array_position(made, null)]
        using errcode = 'ML014', hint = format('Write all of them: %s.', (select string_agg(n || '=' || (100 / cardinality(names)), ' ') from unnest(names) n));
    end if;
    perform dbscore.refuse_weights(made);
    update dbscore.allocation a set valid_to = clock_timestamp() where a.experiment_id = found.experiment_id and a.valid_to is null;
    insert into dbscore.allocation (experiment_id, number, weights, boundaries, valid_from, reason)
    select found.experiment_id, max(a.number) + 1, made, dbscore.boundaries(found.scheme, made), max(a.valid_to), coalesce(ramp_experiment.reason, '')
    from dbscore.allocation a where a.experiment_id = found.experiment_id;
    perform dbscore.note_experiment(name, 'ramp', to_jsonb(weights), reason);
    perform dbscore.publish_experiment(found.experiment_id);
end
$function$;

create or replace function dbscore.stop_experiment(name text, reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{running,paused}', 'stopped');
begin
    update dbscore.experiment e set status = 'concluded', concluded_at = clock_timestamp() where e.experiment_id = found.experiment_id;
    update dbscore.allocation a set valid_to = clock_timestamp() where a.experiment_id = found.experiment_id and a.valid_to is null;
    perform dbscore.note_experiment(name, 'stop', reason => reason);
end
$function$;

create or replace function dbscore.conclude_experiment(name text, winner text, reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{running,paused}', 'concluded');
    won record;
begin
    select m.name as model, w.number into won
    from dbscore.variant v join dbscore.version w using (version_id) join dbscore.model m using (model_id)
    where v.experiment_id = found.experiment_id and v.name = winner;
    if won.model is null then
        raise exception 'experiment % has no variant %', name, quote_nullable(winner)
        using errcode = 'ML001', hint = format('Its variants: %s.',
            (select string_agg(v.name, ', ' order by v.number) from dbscore.variant v where v.experiment_id = found.experiment_id));
    end if;
    update dbscore.experiment e set status = 'concluded', winner = conclude_experiment.winner, concluded_at = clock_timestamp()
    where e.experiment_id = found.experiment_id;
    update dbscore.allocation a set valid_to = clock_timestamp() where a.experiment_id = found.experiment_id and a.valid_to is null;
    perform dbscore.note_experiment(name, 'conclude', jsonb_build_object('winner', winner, 'version', won.model || ':' || won.number), reason);
    perform dbscore.promote(won.model, won.number, reason => coalesce(nullif(reason, ''), format('winner of experiment %s', name)));
end
$function$;

create or replace function dbscore.drop_experiment(name text, reason text default '') returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $function$
declare
    found constant dbscore.experiment := dbscore.experiment_in(name, '{draft,concluded}', 'dropped');
    routine regprocedure;
begin
    execute format('drop view if exists experiments.%I', name || '_log');
    for routine in
        select p.oid from pg_proc p where p.pronamespace = to_regnamespace('experiments')
        and p.proname = any (dbscore.experiment_functions(name))
    loop
        execute format('drop function %s', routine);
    end loop;
    delete from dbscore.outcome o using dbscore.metric m where m.experiment_id = found.experiment_id and o.metric_id = m.metric_id;
    delete from dbscore.prediction p where p.experiment_id = found.experiment_id;
    delete from dbscore.assignment a where a.experiment_id = found.experiment_id;
    delete from dbscore.experiment e where e.experiment_id = found.experiment_id;
    perform dbscore.note_experiment(name, 'drop', reason => reason);
end
$function$;

-- the months of predictions, this one and the next three; what the default partition has of them goes there
create or replace function dbscore.make_partitions() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $function$
declare
    month timestamptz;
    named text;
begin
    for month in select generate_series(date_trunc('month', now()), date_trunc('month', now()) + interval '3 months', interval '1 month')
    loop
        named := 'prediction_' || to_char(month, 'YYYYMM');
        continue when to_regclass('dbscore.' || named) is not null;
        execute format('create table dbscore.%I (like dbscore.prediction including defaults)', named);
        lock table dbscore.prediction_default in access exclusive mode;
        execute format('with moved as (delete from dbscore.prediction_default p where p.predicted_at >= %2$L and p.predicted_at < %3$L returning *)'
                       ' insert into dbscore.%1$I select * from moved', named, month, month + interval '1 month');
        execute format('alter table dbscore.prediction attach partition dbscore.%I for values from (%L) to (%L)', named, month, month + interval '1 month');
    end loop;
end
$function$;

comment on function dbscore.experiment_in(text, text[], text) is 'An experiment''s row, locked, where it has one of the statuses.';
comment on function dbscore.start_experiment(text, text) is 'Starts an experiment, or goes on with one that is paused.';
comment on function dbscore.pause_experiment(text, text) is 'Pauses an experiment: it answers nothing until it is started again.';
comment on function dbscore.ramp_experiment(text, text[], text) is 'Changes the weights, for units that are assigned from now on.';
comment on function dbscore.stop_experiment(text, text) is 'Concludes an experiment without a winner.';
comment on function dbscore.conclude_experiment(text, text, text) is 'Concludes an experiment, and promotes the winner''s version.';
comment on function dbscore.drop_experiment(text, text) is 'Drops a draft or a concluded experiment, with everything that it recorded.';
comment on function dbscore.make_partitions() is 'Makes the tables of this month''s predictions and the next three months''.';
