"""The configuration reference, made from the schema: `python -m pipeline.config.docs > docs/configuration.md`."""

import json
import sys
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.config.load import preset_names
from pipeline.config.schema import Config

_HEAD = """\
# Configuration

One schema describes a whole run. `-c` takes the name of a preset ({presets}) or a YAML file, and `section.key=value`
after it overrides single values:

```yaml
# mine.yaml: a preset with changes
preset: ytf-vit-small
run: {{name: first-try}}
storage: {{root: s3://my-bucket/marlin}}
corpus: {{kind: folder, path: /data/videos, name: mine}}
tracking: {{uri: http://mlflow.example.org:5000}}
```

Unknown keys are errors that name the nearest known one. `train.steps` and `train.epochs` exclude each other, and so do
`data.dataset` and `data.mix`; setting one on top of a preset or file replaces the other.
"""


def reference() -> str:
    """The page as Markdown."""
    lines = [_HEAD.format(presets=", ".join(f"`{name}`" for name in preset_names()))]
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            lines += [f"## {name}", "", "| key | default | what |", "|---|---|---|", *_rows(section, name), ""]
    return "\n".join(lines)


def _rows(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        key, kind = f"{prefix}.{name}", field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _rows(kind, key)
            continue
        default = "required" if field.default is PydanticUndefined else f"`{json.dumps(field.default)}`"
        text = (field.description or "").replace("|", "\\|")
        yield f"| `{key}` | {default} | {text} |"


if __name__ == "__main__":
    sys.stdout.write(reference())
