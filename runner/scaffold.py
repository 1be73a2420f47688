"""What `campaign init` writes: a small campaign that works against the sandbox as it is."""

from __future__ import annotations

from pathlib import Path

from runner.errors import InputError, Problem

CAMPAIGN = """\
# yaml-language-server: $schema=campaign.schema.json
campaign: hello                        # identity: a recipient gets a campaign at most once, for ever
provider:
  name: wapim                          # or zixflow; see: campaign providers
  token: ${WAPIM_TOKEN}                # from the environment or .env, never written here
audience:
  file: hello.csv
  phone: Mobile
  default_region: US                   # country of numbers without a country code
message:
  image: https://cdn.example.com/hello.jpg
  template: hello.j2                   # in templates/
send:
  rate: 10/min
"""

AUDIENCE = """\
Mobile,Name,City
+1 202-555-0143,Ada,Springfield
(202) 555-0176,Grace,
+1 202-555-0198,Alan,Riverside
12345,Charles,Springfield
"""

TEMPLATE = """\
Hello {{ Name }}!
{% if City %}
See you soon in {{ City }}.
{% else %}
See you soon.
{% endif %}
"""

GITIGNORE = "reports/\n.env\n"


def scaffold(folder: Path, schema: bytes) -> list[Path]:
    """Write the files into `folder`; returns what was written. Nothing that exists is touched: raises InputError."""
    files = {
        folder / "campaigns" / "hello.yaml": CAMPAIGN.encode(),
        folder / "campaigns" / "hello.csv": AUDIENCE.encode(),
        folder / "campaigns" / "campaign.schema.json": schema,
        folder / "templates" / "hello.j2": TEMPLATE.encode(),
        folder / ".gitignore": GITIGNORE.encode(),
    }
    there = [path for path in files if path.exists() and path.name != ".gitignore"]
    if there:
        raise InputError(*(Problem(str(path), "is there already", "choose an empty folder") for path in there))
    written = []
    for path, content in files.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            written.append(path)
    (folder / "reports").mkdir(mode=0o700, exist_ok=True)
    return written
