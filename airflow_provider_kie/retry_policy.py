# SPDX-License-Identifier: Apache-2.0
"""
A ready retry policy for tasks that submit to KIE, for Airflow 3.3 and later.

.. code-block:: python

    from airflow_provider_kie.retry_policy import KIE_RETRY_POLICY

    ConvertToWavOperator(..., retries=5, retry_policy=KIE_RETRY_POLICY)

An error for which a retry cannot help fails at once; a rate limit waits a minute, maintenance 15; everything else
follows the task's own ``retry_delay``. A policy cannot exceed the task's ``retries``.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import AirflowOptionalProviderFeatureException

from airflow_provider_kie import exceptions

try:
    from airflow.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        "airflow_provider_kie.retry_policy needs Airflow 3.3 or later; on this Airflow leave out retry_policy= and set "
        "retry_delay instead. Errors that a retry cannot help are not retried on any version."
    ) from error

__all__ = ["KIE_RETRY_POLICY"]

KIE_RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=[
                exceptions.KieAuthenticationError,
                exceptions.KieInsufficientCreditsError,
                exceptions.KieValidationError,
                exceptions.KieKeyCapError,
                exceptions.KieAlreadyConvertedError,
                exceptions.KieBlockedError,
                exceptions.KieConfigurationError,
                exceptions.KieFeatureDisabledError,
                exceptions.KieJobRefusedError,
                exceptions.KieMaybeSubmittedError,
            ],
            action=RetryAction.FAIL,
            reason="KIE refuses this until somebody acts; the error says what to do",
        ),
        RetryRule(
            exception=exceptions.KieRateLimitError,
            retry_delay=timedelta(minutes=1),
            reason="KIE's limit on new jobs, which holds for 10 seconds",
        ),
        RetryRule(
            exception=exceptions.KieMaintenanceError,
            retry_delay=timedelta(minutes=15),
            reason="KIE is under maintenance",
        ),
    ]
)
