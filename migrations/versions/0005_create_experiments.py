"""Create the experiments: their design, assignments, predictions by month, outcomes, and sums by day."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
create table dbscore.experiment (
    experiment_id integer generated always as identity,
    name text not null,
    description text default '' not null,
    mode text not null,
    unit_name text not null,
    scheme text not null,
    salt text not null,
    layer text,
    layer_from integer,
    layer_to integer,
    eligible text,
    holdout integer default 0 not null,
    records_features boolean default false not null,
    status text default 'draft' not null,
    winner text,
    created_at timestamp with time zone default now() not null,
    created_by text default session_user not null,
    started_at timestamp with time zone,
    concluded_at timestamp with time zone,
    counted_xact xid8,
    constraint experiment_pkey primary key (experiment_id),
    constraint experiment_name_check check (name ~ '^[a-z_][a-z0-9_]{0,47}$'),
    constraint experiment_mode_check check (mode in ('ab', 'shadow')),
    constraint experiment_scheme_check check (scheme in ('sha256', 'growthbook2')),
    constraint experiment_status_check check (status in ('draft', 'running', 'paused', 'concluded')),
    constraint experiment_holdout_check check (holdout between 0 and 9999),
    constraint experiment_layer_check check (num_nulls(layer, layer_from, layer_to) in (0, 3) and layer_from >= 0
        and layer_from < layer_to and layer_to <= 10000),
    constraint experiment_name_key unique (name)
);
comment on table dbscore.experiment is 'A/B and shadow tests of versions.';
create table dbscore.experiment_history (
    experiment_history_id bigint generated always as identity,
    experiment text not null,
    action text not null,
    detail jsonb default '{}' not null,
    reason text default '' not null,
    done_by text default session_user not null,
    done_at timestamp with time zone default clock_timestamp() not null,
    constraint experiment_history_pkey primary key (experiment_history_id)
);
create index experiment_history_experiment_idx on dbscore.experiment_history (experiment);
comment on table dbscore.experiment_history is 'Who did what to which experiment, when and why.';
create table dbscore.variant (
    experiment_id integer not null,
    number smallint not null,
    name text not null,
    version_id integer not null,
    constraint variant_pkey primary key (experiment_id, number),
    constraint variant_experiment_id_name_key unique (experiment_id, name),
    constraint variant_number_check check (number > 0),
    constraint variant_name_check check (name ~ '^[a-z_][a-z0-9_]{0,47}$' and name <> 'holdout'),
    constraint variant_experiment_id_fkey foreign key (experiment_id)
        references dbscore.experiment (experiment_id) on delete cascade,
    constraint variant_version_id_fkey foreign key (version_id)
        references dbscore.version (version_id)
);
create index variant_version_id_idx on dbscore.variant (version_id);
comment on table dbscore.variant is 'Arms of experiments, each bound to a version.';
create table dbscore.allocation (
    allocation_id integer generated always as identity,
    experiment_id integer not null,
    number integer not null,
    weights integer[] not null,
    boundaries integer[] not null,
    valid_from timestamp with time zone default clock_timestamp() not null,
    valid_to timestamp with time zone,
    reason text default '' not null,
    created_by text default session_user not null,
    constraint allocation_pkey primary key (allocation_id),
    constraint allocation_experiment_id_number_key unique (experiment_id, number),
    constraint allocation_experiment_id_fkey foreign key (experiment_id)
        references dbscore.experiment (experiment_id) on delete cascade
);
comment on table dbscore.allocation is 'The weights of variants, each period a row.';
create table dbscore.assignment (
    experiment_id integer not null,
    unit text collate "C" not null,
    variant smallint not null,
    allocation_id integer not null,
    assigned_at timestamp with time zone default clock_timestamp() not null,
    xact xid8 default pg_current_xact_id() not null,
    forced_variant smallint,
    forced_by text,
    left_out_xact xid8,
    constraint assignment_pkey primary key (experiment_id, unit)
);
create index assignment_experiment_id_left_out_xact_idx on dbscore.assignment (experiment_id, left_out_xact)
    where left_out_xact is not null;
create index assignment_experiment_id_xact_idx on dbscore.assignment (experiment_id, xact);
comment on table dbscore.assignment is 'Which variant a unit got first; it keeps it.';
create table dbscore.prediction (
    experiment_id integer not null,
    unit text collate "C" not null,
    variant smallint not null,
    version_id integer not null,
    engine text not null,
    is_served boolean not null,
    prediction double precision,
    label text,
    probabilities double precision[],
    request_id text,
    features jsonb,
    predicted_at timestamp with time zone default clock_timestamp() not null
)
 partition by range (predicted_at);
create index prediction_experiment_id_unit_idx on dbscore.prediction (experiment_id, unit);
create index prediction_predicted_at_idx on dbscore.prediction using brin (predicted_at);
comment on table dbscore.prediction is 'What was predicted for units of experiments, by month.';
create table dbscore.request (
    experiment_id integer not null,
    request_id text not null,
    unit text,
    predicted_at timestamp with time zone not null,
    constraint request_pkey primary key (experiment_id, request_id),
    constraint request_experiment_id_fkey foreign key (experiment_id)
        references dbscore.experiment (experiment_id) on delete cascade
);
comment on table dbscore.request is 'Requests that were answered: asked again, they get the same answer.';
create table dbscore.metric (
    metric_id integer generated always as identity,
    experiment_id integer not null,
    name text not null,
    kind text not null,
    direction text not null,
    role text not null,
    margin double precision,
    "window" interval,
    quantile double precision,
    source text,
    covariate text,
    created_at timestamp with time zone default now() not null,
    created_by text default session_user not null,
    constraint metric_pkey primary key (metric_id),
    constraint metric_experiment_id_name_key unique (experiment_id, name),
    constraint metric_name_check check (name ~ '^[a-z_][a-z0-9_]{0,47}$'),
    constraint metric_kind_check check (
        kind in ('conversion', 'mean', 'count', 'ratio', 'quantile', 'log_loss', 'brier', 'auc', 'rmse', 'mae')),
    constraint metric_direction_check check (direction in ('higher', 'lower')),
    constraint metric_role_check check (role in ('goal', 'guardrail')),
    constraint metric_margin_check check ((role = 'guardrail') = (margin is not null) and margin >= 0),
    constraint metric_quantile_check check (
        (kind = 'quantile') = (quantile is not null) and quantile > 0 and quantile < 1),
    constraint metric_experiment_id_fkey foreign key (experiment_id)
        references dbscore.experiment (experiment_id) on delete cascade
);
comment on table dbscore.metric is 'What experiments are judged by.';
create table dbscore.outcome (
    metric_id integer not null,
    unit text collate "C" not null,
    variant smallint,
    value double precision not null,
    denominator double precision,
    label text,
    predicted double precision,
    occurred_at timestamp with time zone not null,
    xact xid8 default pg_current_xact_id() not null,
    recorded_at timestamp with time zone default clock_timestamp() not null,
    recorded_by text default session_user not null
);
create index outcome_metric_id_unit_idx on dbscore.outcome (metric_id, unit);
create index outcome_metric_id_xact_idx on dbscore.outcome (metric_id, xact);
comment on table dbscore.outcome is 'What came of units.';
create table dbscore.exposure_day (
    experiment_id integer not null,
    allocation_id integer not null,
    variant smallint not null,
    day date not null,
    units bigint not null,
    constraint exposure_day_pkey primary key (experiment_id, allocation_id, variant, day),
    constraint exposure_day_experiment_id_fkey foreign key (experiment_id)
        references dbscore.experiment (experiment_id) on delete cascade,
    constraint exposure_day_allocation_id_fkey foreign key (allocation_id)
        references dbscore.allocation (allocation_id) on delete cascade
);
comment on table dbscore.exposure_day is 'Units by the day of their assignment, counted.';
create table dbscore.metric_day (
    metric_id integer not null,
    allocation_id integer not null,
    variant smallint not null,
    day date not null,
    units bigint not null,
    total double precision not null,
    squares double precision not null,
    denominator_total double precision not null,
    denominator_squares double precision not null,
    products double precision not null,
    constraint metric_day_pkey primary key (metric_id, allocation_id, variant, day),
    constraint metric_day_metric_id_fkey foreign key (metric_id)
        references dbscore.metric (metric_id) on delete cascade,
    constraint metric_day_allocation_id_fkey foreign key (allocation_id)
        references dbscore.allocation (allocation_id) on delete cascade
);
comment on table dbscore.metric_day is 'Sums of outcomes by the day on which units were assigned.';
create table dbscore.prediction_default partition of dbscore.prediction default
"""


def upgrade() -> None:
    for statement in TABLES.split(";\n"):
        op.execute(statement.strip())
