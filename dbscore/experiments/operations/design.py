"""The design of experiments: made, started, changed, concluded; and who may use them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from dbscore.errors import ExperimentError
from dbscore.experiments import lookup
from dbscore.experiments.operations.transactions import Transactions
from dbscore.experiments.records import Variant, percentage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dbscore.experiments.records import Experiment, ExperimentEvent, Mode, Scheme

__all__ = ["Design"]

_CREATE = """
select dbscore.create_experiment(
    %(name)s, %(unit)s, %(variants)s::text[],
    mode => %(mode)s,
    scheme => %(scheme)s,
    salt => %(salt)s,
    layer => %(layer)s,
    layer_share => %(layer_share)s::numeric,
    eligible => %(eligible)s,
    holdout => %(holdout)s::numeric,
    record_features => %(record_features)s::boolean,
    description => %(description)s)
"""


class Design(Transactions):
    """What is done to an experiment."""

    def create(  # noqa: PLR0913 - what a design may say
        self,
        name: str,
        *,
        unit: str,
        variants: Sequence[Variant | str],
        mode: Mode = "ab",
        scheme: Scheme = "sha256",
        salt: str | None = None,
        layer: str | None = None,
        layer_share: float | None = None,
        eligible: str | None = None,
        holdout: float = 0.0,
        record_features: bool = False,
        description: str = "",
    ) -> Experiment:
        """Draft an experiment and make its functions; it answers nothing until it is started.

        Args:
            name: Its name, which becomes its functions': a lower-case identifier of at most 48 characters.
            unit: What the column is called that tells units apart, such as `customer_id`.
            variants: The control first: `Variant`s, or texts such as `control=tip:3:50`, `treatment=tip@challenger:50`.
            mode: `ab`, or `shadow`: all versions predict, the control's prediction is the answer, and there are no
                weights.
            scheme: What draws the variants: `sha256`, or `growthbook2` as GrowthBook's SDKs do.
            salt: What is hashed with the unit; by default the experiment's name.
            layer: Experiments of a layer share no unit.
            layer_share: How much of the layer, in percent; by default what is left in one piece.
            eligible: A condition on the features; other units get the control's prediction, and nothing is recorded.
            holdout: The share of units, a fraction in [0, 1), that get the control's prediction and are compared with
                nothing.
            record_features: Record the features with each prediction.
            description: What it is for.

        Raises:
            NotFoundError: There is no such version.
            FeatureError: The versions do not take the same features.
            NameRefusedError: The name, or a variant's, is refused or taken.
            ExperimentError: The design cannot be; the message says why.
            PrivilegeError: The role does not own the schema.
        """
        parameters = {
            "name": name,
            "unit": unit,
            "variants": [_variant(variant, mode) for variant in variants],
            "mode": mode,
            "scheme": scheme,
            "salt": salt,
            "layer": layer,
            "layer_share": layer_share,
            "eligible": eligible,
            "holdout": holdout,
            "record_features": record_features,
            "description": description,
        }
        return self._changed(name, _CREATE, parameters)

    def start(self, name: str, *, reason: str = "") -> Experiment:
        """Start a draft, or go on after a pause.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is running or concluded, or a version was retired.
        """
        return self._changed(name, "select dbscore.start_experiment(%s, %s)", [name, reason])

    def pause(self, name: str, *, reason: str = "") -> Experiment:
        """Let a running experiment answer nothing until it is started again.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is not running.
        """
        return self._changed(name, "select dbscore.pause_experiment(%s, %s)", [name, reason])

    def ramp(self, name: str, weights: Mapping[str, float] | Sequence[str], *, reason: str = "") -> Experiment:
        """Change the weights, for units that are assigned from now on; the others keep their variant.

        Args:
            name: The experiment.
            weights: Of all variants, in percent: `{"control": 20, "treatment": 80}`, or texts such as `control=20`.
            reason: Why; kept in the experiment's history.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: The weights are not those of all variants, or do not sum to 100.
        """
        if isinstance(weights, Mapping):
            weights = [f"{variant}={percentage(weight)}" for variant, weight in weights.items()]
        return self._changed(name, "select dbscore.ramp_experiment(%s, %s::text[], %s)", [name, list(weights), reason])

    def stop(self, name: str, *, reason: str = "") -> Experiment:
        """Conclude an experiment without a winner.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is a draft, or concluded.
        """
        return self._changed(name, "select dbscore.stop_experiment(%s, %s)", [name, reason])

    def conclude(self, name: str, winner: str, *, reason: str = "") -> Experiment:
        """Conclude an experiment, and make the winner's version its model's champion.

        Raises:
            NotFoundError: There is no such experiment or variant.
            ExperimentError: It is a draft, or concluded.
            InUseError: The winner cannot be promoted, as a view uses a function that it does not have.
        """
        return self._changed(name, "select dbscore.conclude_experiment(%s, %s, %s)", [name, winner, reason])

    def drop(self, name: str, *, reason: str = "") -> None:
        """Drop a draft or a concluded experiment, with everything that it recorded; its history stays.

        Raises:
            NotFoundError: There is no such experiment.
            ExperimentError: It is running or paused.
        """
        self._call("select dbscore.drop_experiment(%s, %s)", [name, reason])

    def list(self) -> Sequence[Experiment]:
        """Return the experiments that the role may use, oldest first."""
        with self._begun() as connection:
            return lookup.experiments(connection)

    def get(self, name: str) -> Experiment:
        """Return one experiment.

        Raises:
            NotFoundError: There is none of that name that the role may use.
        """
        with self._begun() as connection:
            return lookup.experiment(connection, name)

    def history(self, name: str) -> Sequence[ExperimentEvent]:
        """Return what was done to an experiment, by whom and why, oldest first; also to one that was dropped.

        Raises:
            NotFoundError: There never was such an experiment.
            PrivilegeError: The role does not own the schema.
        """
        with self._begun() as connection:
            return lookup.history(connection, name)

    def grant(self, name: str, role: str) -> None:
        """Let a role use an experiment: ask it, record what came of it, and read its views.

        Raises:
            NotFoundError: There is no such experiment or role.
        """
        self._call("select dbscore.grant_experiment(%s, %s)", [name, role])

    def revoke(self, name: str, role: str) -> None:
        """Take from a role what `grant` gave for this experiment.

        Raises:
            NotFoundError: There is no such experiment or role.
        """
        self._call("select dbscore.revoke_experiment(%s, %s)", [name, role])


def _variant(variant: Variant | str, mode: str) -> str:
    if isinstance(variant, Variant) and variant.weight is None and mode != "shadow":
        # tip:3 without its weight would be read as the champion with a weight of 3
        raise ExperimentError(
            f"variant {variant.name} has no weight", remedy="Give each variant its percentage of the units."
        )
    return str(variant)
