# SPDX-License-Identifier: Apache-2.0
"""
A receiver of KIE's callbacks, which makes asset events of them; needs ``airflow-provider-kie[callbacks]``.

It runs beside Airflow, as ``kie-callbacks``. Nothing of the provider imports this package.
"""
