"""What users write pipelines with: `@step`, `@pipeline` and their options.

`Pipeline.compile()` runs the body of the pipeline once with references in the place of values (`tracing`), and makes
of it the intermediate representation that the platform runs. Everything wrong is a `DefinitionError` with the user's
own file and line.
"""

from penstock.authoring.options import Resources
from penstock.authoring.pipelines import Pipeline, pipeline
from penstock.authoring.steps import Step, step

__all__ = ["Pipeline", "Resources", "Step", "pipeline", "step"]
