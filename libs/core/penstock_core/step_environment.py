"""The environment variables of a step's process: what it inherits of its parent's.

Only variables that programs need are inherited: an attempt must not see the platform's credentials, and its result
should not depend on the shell that started the platform.
"""

from __future__ import annotations

from collections.abc import Mapping

TRACEPARENT = "TRACEPARENT"
"""Variable with the span of the attempt (W3C Trace Context), see `penstock_core.trace_context`."""

# fmt: off
_PASSED = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
})
# fmt: on
_PASSED_PREFIXES = ("LC_", "XDG_", "CONDA_", "CUDA_", "NVIDIA_", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "HF_")


def inherited(base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `base` that steps inherit."""
    return {k: v for k, v in base.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)}


def variables(given: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a step's process: `given`, and what it inherits of `base`, its parent's environment."""
    # Steps have no display.
    return {"MPLBACKEND": "Agg", **inherited(base), **given}
