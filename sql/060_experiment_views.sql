-- sql/060_experiment_views.sql: experiments for analysts: what was assigned, predicted, came of it, and which variant is better.
--
-- Replayed  whole, on every install and upgrade: create or replace only, no tables, no data
-- Needs     sql/056_publishing.sql, sql/057_probabilities.sql, sql/059_experiment_sums.sql
--
-- A role sees the experiments that it may use; members of the owner see all.
--
-- dbscore.experiment_assignments   one row per unit
-- dbscore.experiment_predictions   one row per prediction; experiments.<name>_log has them typed
-- dbscore.experiment_outcomes      one row per outcome, and whether it counts
-- dbscore.experiment_daily         units and outcomes by the day, in UTC, on which the units were assigned
-- dbscore.experiment_summary       n, sum, sum of squares, mean, variance of each variant, by metric and allocation
-- dbscore.experiment_results       each variant beside the control: difference, lift, interval, p, and the sample-ratio check

create or replace view dbscore.experiment_assignments with (security_barrier) as
select e.experiment, a.unit, case a.variant when 0 then 'holdout' else v.name end as variant, l.number as allocation,
    case when e.mode = 'shadow' or a.forced_by is not null then 1 else dbscore.propensity(a.variant, l.weights, (e.holdout * 10000)::integer) end as propensity,
    a.assigned_at,
    f.name as forced_variant, a.forced_by,
    case when a.forced_by is not null then 'forced' when a.left_out_xact is not null then 'seen in two variants' when a.variant = 0 then 'held out' end as left_out,
    a.by_application
from dbscore.experiments e
join dbscore.assignment a using (experiment_id)
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = a.experiment_id and v.number = a.variant
left join dbscore.variant f on f.experiment_id = a.experiment_id and f.number = a.forced_variant;

create or replace view dbscore.experiment_predictions with (security_barrier) as
select e.experiment, p.unit, case p.variant when 0 then 'holdout' else v.name end as variant, m.name || ':' || w.number as version, p.engine, p.is_served,
    p.prediction, p.label, p.probabilities,
    case when e.mode = 'shadow' or a.forced_by is not null then 1 else dbscore.propensity(a.variant, l.weights, (e.holdout * 10000)::integer) end as propensity, p.request_id, p.features, p.predicted_at
from dbscore.experiments e
join dbscore.prediction p using (experiment_id)
join dbscore.version w using (version_id)
join dbscore.model m using (model_id)
join dbscore.assignment a on a.experiment_id = p.experiment_id and a.unit = p.unit
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = p.experiment_id and v.number = p.variant;

create or replace view dbscore.experiment_outcomes with (security_barrier) as
select e.experiment, m.name as metric, o.unit, v.name as variant, o.value, o.denominator, o.label, o.predicted, o.occurred_at, o.recorded_at, o.recorded_by,
    reason.reason is null as counts, reason.reason
from dbscore.experiments e
join dbscore.metric m using (experiment_id)
join dbscore.outcome o using (metric_id)
left join dbscore.assignment a on a.experiment_id = e.experiment_id and a.unit = o.unit
left join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = coalesce(o.variant, a.variant)
cross join lateral (select case
    when a.unit is null then 'never exposed'
    when a.left_out_xact is not null then case when a.forced_by is not null then 'forced' else 'seen in two variants' end
    when a.variant = 0 then 'held out'
    when o.occurred_at < a.assigned_at then 'before the exposure'
    when o.occurred_at >= a.assigned_at + m."window" then 'after the window' end as reason) as reason;

-- the sums are taken experiment by experiment, metric by metric (`offset 0` keeps the condition within): a query of one of
-- them must not pay for what the others have recorded since they were refreshed
create or replace view dbscore.experiment_daily with (security_barrier) as
select e.experiment, s.metric, case s.variant when 0 then 'holdout' else v.name end as variant, l.number as allocation, s.day,
    s.assigned, coalesce(s.units, 0) as units, coalesce(s.total, 0) as total, coalesce(s.squares, 0) as squares,
    coalesce(s.denominator_total, 0) as denominator_total, coalesce(s.denominator_squares, 0) as denominator_squares, coalesce(s.products, 0) as products
from dbscore.experiments e
cross join lateral (
    -- once, not for each metric
    with exposed as materialized (select x.* from dbscore.exposure_sums x where x.experiment_id = e.experiment_id)
    select m.name as metric, d.*
    from (values (e.experiment_id)) as one (experiment_id) left join dbscore.metric m using (experiment_id)
    cross join lateral (
        select allocation_id, variant, day, coalesce(x.units, 0) as assigned, d.units, d.total, d.squares, d.denominator_total, d.denominator_squares, d.products
        from exposed x
        -- in shadow mode a version has outcomes, and no units of its own
        full join (select d.* from dbscore.metric_sums d where d.metric_id = m.metric_id) d using (allocation_id, variant, day)
        offset 0
    ) d
) s
join dbscore.allocation l using (allocation_id)
left join dbscore.variant v on v.experiment_id = e.experiment_id and v.number = s.variant;

create or replace view dbscore.experiment_summary with (security_barrier) as
with sums as (
    select d.experiment, m.metric_id, d.metric, m.kind, d.variant, d.allocation,
        case when dbscore.is_quality(m.kind) then sum(d.units) else sum(d.assigned) end::float8 as n,
        sum(d.total) as total, sum(d.squares) as squares, sum(d.denominator_total) as denominator_total,
        sum(d.denominator_squares) as denominator_squares, sum(d.products) as products
    from dbscore.experiment_daily d
    -- looked up for each row: a join may add up the days once for each metric
    cross join lateral (
        select x.metric_id, x.kind from dbscore.metric x join dbscore.experiment e using (experiment_id) where e.name = d.experiment and x.name = d.metric offset 0
    ) m
    where m.kind not in ('quantile', 'auc')
    group by d.experiment, m.metric_id, d.metric, m.kind, d.variant, d.allocation
), moments as (
    select s.*, s.total / nullif(s.n, 0) as own_mean, case when s.n > 1 then greatest(0, (s.squares - s.total * s.total / s.n) / (s.n - 1)) end as own_variance,
        s.denominator_total / nullif(s.n, 0) as denominator_mean,
        case when s.n > 1 then greatest(0, (s.denominator_squares - s.denominator_total * s.denominator_total / s.n) / (s.n - 1)) end as denominator_variance,
        case when s.n > 1 then (s.products - s.total * s.denominator_total / s.n) / (s.n - 1) end as covariance
    from sums s
)
select t.experiment, t.metric, t.kind, t.variant, t.allocation, t.n::bigint as n, t.total as sum, t.squares as sum_of_squares,
    case t.kind when 'ratio' then t.total / nullif(t.denominator_total, 0) else t.own_mean end as mean,
    -- of a ratio by the delta method: of the unit's value less the ratio times its denominator, over the mean denominator
    case t.kind when 'ratio' then (
        t.own_variance - 2 * t.total / nullif(t.denominator_total, 0) * t.covariance
        + power(t.total / nullif(t.denominator_total, 0), 2) * t.denominator_variance) / nullif(power(t.denominator_mean, 2), 0)
    else t.own_variance end as variance,
    t.denominator_total as denominator_sum, t.denominator_squares as denominator_sum_of_squares, t.products as sum_of_products
from moments t;

create or replace view dbscore.experiment_results with (security_barrier) as
with arms as (
    select s.*, v.number,
        -- the control's beside it, by a window: a join with itself would read all experiments twice
        first_value(s.n) over arm as control_n, first_value(s.mean) over arm as control_mean, first_value(s.variance) over arm as control_variance,
        first_value(s.sum) over arm as control_sum, first_value(v.number) over arm as first_number
    from dbscore.experiment_summary s
    join dbscore.experiment e on e.name = s.experiment join dbscore.variant v on v.experiment_id = e.experiment_id and v.name = s.variant
    window arm as (partition by s.experiment, s.metric, s.allocation order by v.number)
), strata as (
    select t.experiment, t.metric, t.kind, t.variant, t.number, t.allocation, t.control_n, t.n, t.control_mean, t.mean,
        t.variance / t.n + t.control_variance / t.control_n as square_error,
        -- of shares under the hypothesis that they are equal
        case t.kind when 'conversion' then (t.sum + t.control_sum) / (t.n + t.control_n) * (1 - (t.sum + t.control_sum) / (t.n + t.control_n)) * (1.0 / t.n + 1.0 / t.control_n) end as pooled_square_error,
        t.control_variance / t.control_n as control_square_error, t.variance / t.n as own_square_error,
        (t.n + t.control_n) / sum(t.n + t.control_n) over (partition by t.experiment, t.metric, t.variant) as share
    from arms t
    where t.number > 1 and t.first_number = 1 and t.n > 1 and t.control_n > 1
), compared as (
    select s.experiment, s.metric, s.kind, s.variant, s.number, sum(s.control_n)::bigint as control_n, sum(s.n)::bigint as n,
        sum(s.share * s.control_mean)::float8 as control_mean, sum(s.share * s.mean)::float8 as mean, sum(s.share * (s.mean - s.control_mean))::float8 as difference,
        sqrt(sum(s.share * s.share * s.square_error)::float8) as standard_error,
        sqrt(sum(s.share * s.share * s.pooled_square_error)::float8) as pooled_error,
        sum(s.share * s.share * s.control_square_error)::float8 as control_square_error, sum(s.share * s.share * s.own_square_error)::float8 as own_square_error,
        count(*) as allocations
    from strata s group by s.experiment, s.metric, s.kind, s.variant, s.number
)
select c.experiment, c.metric, c.kind, m.direction, m.role, c.variant, c.control_n, c.n, c.control_mean, c.mean, c.difference,
    c.difference / nullif(abs(c.control_mean), 0) as lift, c.standard_error,
    c.difference - 1.959963984540054 * c.standard_error as lower, c.difference + 1.959963984540054 * c.standard_error as upper,
    c.difference / nullif(coalesce(c.pooled_error, c.standard_error), 0) as z,
    dbscore.normal_p(c.difference / nullif(coalesce(c.pooled_error, c.standard_error), 0)) as p,
    c.allocations, r.chi_square as sample_ratio_chi_square, dbscore.chi_square_p(r.chi_square, r.df) as sample_ratio_p,
    coalesce(dbscore.chi_square_p(r.chi_square, r.df) < 0.001, false) as sample_ratio_suspicious
from dbscore.experiment e
cross join lateral (
    select sum(x.chi_square) as chi_square, sum(x.df)::bigint as df
    from (
        select u.allocation, sum(case when u.expected > 0 then power(u.units - u.expected, 2) / u.expected when u.units > 0 then 'Infinity' else 0 end) as chi_square,
            greatest(0, count(*) filter (where u.expected > 0) - 1) as df
        from (
            select l.number as allocation, coalesce(s.units, 0) as units,
                l.weights[v.number] / 1e4::float8 * sum(coalesce(s.units, 0)) over (partition by l.allocation_id) as expected
            from dbscore.allocation l join dbscore.variant v using (experiment_id)
            left join (
                select x.allocation_id, x.variant, sum(x.units)::float8 as units from dbscore.exposure_sums x
                where x.experiment_id = e.experiment_id group by x.allocation_id, x.variant
            ) s on s.allocation_id = l.allocation_id and s.variant = v.number
            where l.experiment_id = e.experiment_id and e.mode = 'ab'
        ) u group by u.allocation
    ) x
) r
join compared c on c.experiment = e.name
join dbscore.metric m on m.experiment_id = e.experiment_id and m.name = c.metric;

comment on view dbscore.experiment_assignments is 'Which variant each unit has, and why it may be left out of the analysis.';
comment on view dbscore.experiment_predictions is 'What was predicted for each unit, by which version.';
comment on view dbscore.experiment_outcomes is 'What came of each unit, and whether it counts.';
comment on view dbscore.experiment_daily is 'Units and outcomes by the day, in UTC, on which the units were assigned.';
comment on view dbscore.experiment_summary is 'n, sum, sum of squares, mean and variance of each variant, by metric and allocation.';
comment on view dbscore.experiment_results is 'Each variant beside the control: difference, lift, interval, p, and the sample-ratio check.';

comment on column dbscore.experiment_assignments.experiment is 'The experiment.';
comment on column dbscore.experiment_assignments.unit is 'What is assigned, as a text.';
comment on column dbscore.experiment_assignments.variant is 'The variant that it got first, or holdout.';
comment on column dbscore.experiment_assignments.allocation is 'The number of the period of weights in which it was assigned.';
comment on column dbscore.experiment_assignments.propensity is 'The probability that the weights gave it to get this variant, holdout included.';
comment on column dbscore.experiment_assignments.assigned_at is 'When it was assigned: outcomes count from then on.';
comment on column dbscore.experiment_assignments.forced_variant is 'The variant that dbscore.force_assignment gave it; it is used instead.';
comment on column dbscore.experiment_assignments.forced_by is 'Who forced it.';
comment on column dbscore.experiment_assignments.left_out is 'Why the analysis leaves it out: forced, seen in two variants, held out; NULL where it counts.';
comment on column dbscore.experiment_assignments.by_application is 'Whether an application recorded it with dbscore.record_assignment, and not the experiment itself.';
comment on column dbscore.experiment_predictions.experiment is 'The experiment.';
comment on column dbscore.experiment_predictions.unit is 'The unit, as a text.';
comment on column dbscore.experiment_predictions.variant is 'The variant whose version predicted; holdout: the control''s version, for a unit that is held out.';
comment on column dbscore.experiment_predictions.version is 'The version that predicted, such as churn:3.';
comment on column dbscore.experiment_predictions.engine is 'What computed the prediction: onnx or sql.';
comment on column dbscore.experiment_predictions.is_served is 'Whether it was the answer; in shadow mode one prediction of each question is.';
comment on column dbscore.experiment_predictions.prediction is 'The number that was predicted, of a boolean 0 or 1; NULL where it is a text.';
comment on column dbscore.experiment_predictions.label is 'The class that was predicted, where it is a text.';
comment on column dbscore.experiment_predictions.probabilities is 'Of classifiers that give them: one probability per class, in the order of the classes.';
comment on column dbscore.experiment_predictions.propensity is 'The probability that the unit had to get its variant; 1 in shadow mode and where it was forced.';
comment on column dbscore.experiment_predictions.request_id is 'The id of the question, where it had one.';
comment on column dbscore.experiment_predictions.features is 'The features by name, where the experiment records them.';
comment on column dbscore.experiment_predictions.predicted_at is 'When it was asked.';
comment on column dbscore.experiment_outcomes.experiment is 'The experiment.';
comment on column dbscore.experiment_outcomes.metric is 'The metric.';
comment on column dbscore.experiment_outcomes.unit is 'The unit, as a text.';
comment on column dbscore.experiment_outcomes.variant is 'The unit''s variant, in shadow mode the version''s; NULL of a unit that is held out.';
comment on column dbscore.experiment_outcomes.value is 'The number that was recorded; where the outcome is the truth, how far the prediction was from it: rmse has the squared error, auc the truth as 0 or 1.';
comment on column dbscore.experiment_outcomes.denominator is 'Of a ratio; NULL of other metrics.';
comment on column dbscore.experiment_outcomes.label is 'The truth, as it was recorded; NULL of metrics that compare with none.';
comment on column dbscore.experiment_outcomes.predicted is 'The number that the truth was compared with: a prediction or a probability.';
comment on column dbscore.experiment_outcomes.occurred_at is 'When it came.';
comment on column dbscore.experiment_outcomes.recorded_at is 'When it was recorded.';
comment on column dbscore.experiment_outcomes.recorded_by is 'Who recorded it.';
comment on column dbscore.experiment_outcomes.counts is 'Whether the analysis takes it.';
comment on column dbscore.experiment_outcomes.reason is 'Why not: never exposed, forced, seen in two variants, held out, before the exposure, after the window.';
comment on column dbscore.experiment_daily.experiment is 'The experiment.';
comment on column dbscore.experiment_daily.metric is 'The metric; NULL where the experiment has none.';
comment on column dbscore.experiment_daily.variant is 'The variant, or holdout.';
comment on column dbscore.experiment_daily.allocation is 'The number of the period of weights.';
comment on column dbscore.experiment_daily.day is 'The day on which the units were assigned, in UTC.';
comment on column dbscore.experiment_daily.assigned is 'Units assigned on that day, without those that are left out; in shadow mode all are the control''s.';
comment on column dbscore.experiment_daily.units is 'Those of them with an outcome that counts.';
comment on column dbscore.experiment_daily.total is 'The sum of the units'' values.';
comment on column dbscore.experiment_daily.squares is 'The sum of the squares of the units'' values.';
comment on column dbscore.experiment_daily.denominator_total is 'Of a ratio: the sum of the units'' denominators.';
comment on column dbscore.experiment_daily.denominator_squares is 'Of a ratio: the sum of the squares of the units'' denominators.';
comment on column dbscore.experiment_daily.products is 'Of a ratio: the sum of value times denominator, unit by unit.';
comment on column dbscore.experiment_summary.experiment is 'The experiment.';
comment on column dbscore.experiment_summary.metric is 'The metric.';
comment on column dbscore.experiment_summary.kind is 'The metric''s kind.';
comment on column dbscore.experiment_summary.variant is 'The variant, or holdout.';
comment on column dbscore.experiment_summary.allocation is 'The number of the period of weights in which the units were assigned.';
comment on column dbscore.experiment_summary.n is 'Units that count; where outcomes are the truth, those whose truth is known.';
comment on column dbscore.experiment_summary.sum is 'The sum of the units'' values; a unit without an outcome has 0.';
comment on column dbscore.experiment_summary.sum_of_squares is 'The sum of the squares of the units'' values.';
comment on column dbscore.experiment_summary.mean is 'The sum over n; of a ratio over the sum of denominators; of rmse that of squared errors, whose root is the error.';
comment on column dbscore.experiment_summary.variance is 'Of a unit''s value, n - 1 in the denominator; of a ratio by the delta method; NULL below two units.';
comment on column dbscore.experiment_summary.denominator_sum is 'Of a ratio: the sum of the units'' denominators.';
comment on column dbscore.experiment_summary.denominator_sum_of_squares is 'Of a ratio: the sum of the squares of the units'' denominators.';
comment on column dbscore.experiment_summary.sum_of_products is 'Of a ratio: the sum of value times denominator, unit by unit.';
comment on column dbscore.experiment_results.experiment is 'The experiment.';
comment on column dbscore.experiment_results.metric is 'The metric.';
comment on column dbscore.experiment_results.kind is 'The metric''s kind.';
comment on column dbscore.experiment_results.direction is 'Which is better: higher or lower.';
comment on column dbscore.experiment_results.role is 'goal or guardrail.';
comment on column dbscore.experiment_results.variant is 'The variant that is compared with the control.';
comment on column dbscore.experiment_results.control_n is 'Units of the control that count.';
comment on column dbscore.experiment_results.n is 'Units of the variant that count.';
comment on column dbscore.experiment_results.control_mean is 'The control''s mean, averaged over the allocations by their units.';
comment on column dbscore.experiment_results.mean is 'The variant''s mean, averaged in the same way.';
comment on column dbscore.experiment_results.difference is 'The variant''s mean less the control''s.';
comment on column dbscore.experiment_results.lift is 'The difference as a share of the control''s mean; NULL where that is 0.';
comment on column dbscore.experiment_results.standard_error is 'Of the difference, from the variance of each variant.';
comment on column dbscore.experiment_results.lower is 'The lower end of the difference''s 95 percent interval.';
comment on column dbscore.experiment_results.upper is 'The upper end of it.';
comment on column dbscore.experiment_results.z is 'The difference in standard errors; of conversions by the pooled share.';
comment on column dbscore.experiment_results.p is 'The probability of a standard normal number further from 0 than z.';
comment on column dbscore.experiment_results.allocations is 'How many periods of weights were compared.';
comment on column dbscore.experiment_results.sample_ratio_chi_square is 'How far the numbers of units are from the weights; NULL in shadow mode.';
comment on column dbscore.experiment_results.sample_ratio_p is 'The probability of a larger one.';
comment on column dbscore.experiment_results.sample_ratio_suspicious is 'Whether that is below 0.001: something loses units, and the differences mean little.';
