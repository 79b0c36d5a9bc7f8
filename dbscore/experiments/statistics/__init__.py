"""The statistics of experiments: from sums that SQL made, and from arrays, to estimates, intervals and p-values.

Nothing here sees a database. Differences are the treatment's less the control's; intervals are two-sided. What cannot
be tested is no error and no NaN, but a `Comparison` without a p-value, whose method says why.

Importing this package loads no library; each module loads what it needs of scipy and statsmodels.
"""

from __future__ import annotations
