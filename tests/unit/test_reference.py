"""The pages made from the models, and the models as an editor's schema: complete, true, and equal to what is in docs/."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from runner.campaign import load_campaign, schema
from runner.campaignfile import BLOCKS, CampaignModel
from runner.errors import InputError
from runner.providers import PROVIDERS
from runner.reference import campaign_file_page, provider_lines
from runner.workspace import Workspace
from runner.yamlfile import yaml_text

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ENV = {"WAPIM_TOKEN": "invented-token-4411", "ZIXFLOW_TOKEN": "invented-token-4412", "ZIXFLOW_PHONE_ID": "123"}
LEAST: dict[str, object] = {
    "campaign": "spring",
    "provider": {"name": "wapim", "token": "${WAPIM_TOKEN}"},
    "audience": {"file": "customers.xlsx", "phone": "Mobile"},
    "message": {"image": "https://cdn.example.com/a.jpg", "caption": "Hi"},
}
VALIDATOR = jsonschema.Draft202012Validator(schema())
MODELS: list[tuple[str, type[BaseModel]]] = [
    ("", CampaignModel),
    *BLOCKS.items(),
    *((f"provider {provider.name}", provider.settings) for provider in PROVIDERS.values()),
]
EVERY_KEY = [(block, key) for block, model in MODELS for key in model.model_fields]


def page() -> str:
    return campaign_file_page((DOCS / "campaign-file.in.md").read_text(encoding="utf-8"))


def load(tree: dict[str, object], folder: Path) -> None:
    """As the program reads it, in a workspace that has the files of the examples."""
    for name in ("customers.xlsx", "customers.csv", "optouts.csv"):
        (folder / name).touch()
    path = folder / "spring.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False), encoding="utf-8")
    load_campaign(path, Workspace(folder), ENV)


def plain(text: str) -> dict[str, object]:
    """YAML for these tests: PyYAML's safe loader makes dates of some texts, and its base loader texts of all numbers."""

    def numbers(inner: object) -> object:
        if isinstance(inner, dict):
            return {key: numbers(child) for key, child in inner.items()}
        if isinstance(inner, list):
            return [numbers(child) for child in inner]
        return int(inner) if isinstance(inner, str) and inner.isdigit() else inner

    found = numbers(yaml.load(text, Loader=yaml.BaseLoader) or {})  # noqa: S506 - it makes plain text, no objects
    assert isinstance(found, dict)
    return found


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_in_docs_is_what_the_models_say() -> None:
    assert (DOCS / "campaign-file.md").read_text(encoding="utf-8") == page(), "run `make docs`"


@pytest.mark.parametrize(("block", "key"), EVERY_KEY)
def test_every_key_is_on_the_page(block: str, key: str) -> None:
    heading = {"": "## The top level", **{name: f"## {name}" for name in BLOCKS}}.get(block)
    heading = heading or f"### name: {block.removeprefix('provider ')}"
    section = page().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    row = re.search(rf"^\| `{key}` \| (.+) \| (.+) \| (.*) \| (.*) \|$", section, flags=re.MULTILINE)
    assert row is not None, section[:300]


YAML_BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", page(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(YAML_BLOCKS)))
def test_every_example_on_the_page_is_a_good_campaign_file_or_part_of_one(number: int, tmp_path: Path) -> None:
    tree = LEAST | plain(YAML_BLOCKS[number])
    assert list(VALIDATOR.iter_errors(tree)) == []
    load(tree, tmp_path)


def test_a_table_without_a_place_and_a_place_without_a_table_are_mistakes() -> None:
    with pytest.raises(ValueError, match="no place for the keys of top"):
        campaign_file_page("nothing")
    with pytest.raises(KeyError):
        campaign_file_page("{{keys: colours}}\n")


def test_the_list_of_providers_names_every_setting() -> None:
    text = "\n".join(provider_lines())
    for provider in PROVIDERS.values():
        assert provider.name in text
        for key in provider.settings.model_fields:
            assert f"    {key}: " in text


# --- the keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("block", "key"), EVERY_KEY)
def test_every_key_says_what_it_means(block: str, key: str) -> None:
    info = dict(MODELS)[block].model_fields[key]
    assert len(info.description or "") >= 5


@pytest.mark.parametrize(("block", "key"), [(block, key) for block, key in EVERY_KEY if block in {"", *BLOCKS}])
def test_every_example_of_a_key_is_right(block: str, key: str, tmp_path: Path) -> None:
    info = dict(MODELS)[block].model_fields[key]
    if not info.examples:
        assert key in BLOCKS, "give it an example"
        return
    for example in info.examples:
        tree: dict[str, object] = dict(LEAST)
        if not block:
            tree[key] = example
        else:
            rest = tree.get(block, {})
            assert isinstance(rest, dict)
            rest = {name: value for name, value in rest.items() if {name, key} != {"caption", "template"}}
            tree[block] = rest | {key: example}
        assert list(VALIDATOR.iter_errors(tree)) == []
        load(tree, tmp_path)
        assert "\n" not in yaml_text(example)


def attributes_read() -> set[str]:
    """Every name that runner/ reads as an attribute or through getattr, outside the modules that define the models."""
    found: set[str] = set()
    for path in (ROOT / "runner").rglob("*.py"):
        if path.name in {"campaignfile.py", "reference.py"}:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
    return found


READ = attributes_read()


@pytest.mark.parametrize(("block", "key"), EVERY_KEY)
def test_every_key_of_the_campaign_file_is_read_by_the_program(block: str, key: str) -> None:
    """A key that nothing reads is a promise that nobody keeps."""
    if key != "name":  # the provider is chosen by it before there are settings
        assert key in READ, f"{block}.{key} is read nowhere in runner/"


# --- the schema -------------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize(("block", "key"), EVERY_KEY)
def test_every_key_is_in_the_schema_with_its_meaning(block: str, key: str) -> None:
    specs = schema()
    definitions, properties = specs["$defs"], specs["properties"]
    assert isinstance(definitions, dict)
    assert isinstance(properties, dict)
    if block.startswith("provider "):
        spec = next(part for part in properties["provider"]["oneOf"] if part["title"] == block.split()[1])
    else:
        spec = definitions[BLOCKS[block].__name__] if block else specs
    property_spec = spec["properties"][key]
    described = definitions[property_spec["$ref"].split("/")[-1]] if "$ref" in property_spec else property_spec
    assert described["description"] == dict(MODELS)[block].model_fields[key].description
    assert spec["additionalProperties"] is False
    assert {"type": "null"} not in spec["properties"][key].get("anyOf", [])


@pytest.mark.parametrize("path", sorted((ROOT / "campaigns").glob("*.yaml")), ids=lambda path: path.name)
def test_the_campaigns_of_this_repository_fulfil_the_schema_and_load(path: Path) -> None:
    tree = plain(path.read_text(encoding="utf-8"))
    assert list(VALIDATOR.iter_errors(tree)) == []
    assert load_campaign(path, Workspace(ROOT), ENV).name == tree["campaign"]


WRONG: list[tuple[str, dict[str, object]]] = [
    ("unknown key", {"colour": "red"}),
    ("unknown key in a block", {"send": {"rat": "20/s"}}),
    ("key without a value", {"send": {"rate": None}}),
    ("rate without a unit", {"send": {"rate": 20}}),
    ("rate in words", {"send": {"rate": "20 per second"}}),
    ("no rate in the list", {"send": {"rate": []}}),
    ("duration without a unit", {"send": {"timeout": 30}}),
    ("concurrency as text", {"send": {"concurrency": "5"}}),
    ("concurrency out of range", {"send": {"concurrency": 0}}),
    ("unknown format", {"report": {"formats": ["pdf"]}}),
    ("unknown provider", {"provider": {"name": "wapin", "token": "${WAPIM_TOKEN}"}}),
    ("token in the file", {"provider": {"name": "wapim", "token": "invented-token-4411"}}),
    ("setting of another provider", {"provider": {"name": "wapim", "token": "${WAPIM_TOKEN}", "phone_id": "12"}}),
    ("missing setting", {"provider": {"name": "zixflow", "token": "${ZIXFLOW_TOKEN}"}}),
    ("small letters in a region", {"audience": {"file": "customers.csv", "phone": "Mobile", "default_region": "tr"}}),
    ("missing key", {"audience": {"file": "customers.csv"}}),
    ("template and caption", {"message": {"image": "https://x.example", "template": "a.j2", "caption": "Hi"}}),
    ("neither", {"message": {"image": "https://x.example"}}),
    ("list in vars", {"vars": {"a": [1]}}),
    ("block that is text", {"audience": "customers.csv"}),
    ("number for a name", {"campaign": 5}),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=[name for name, _ in WRONG])
def test_editor_and_program_refuse_the_same(name: str, change: dict[str, object], tmp_path: Path) -> None:
    tree = LEAST | change
    assert list(VALIDATOR.iter_errors(tree)) != []
    with pytest.raises(InputError):
        load(tree, tmp_path)


def test_editor_and_program_accept_the_same_spellings_of_rates_and_durations(tmp_path: Path) -> None:
    spellings: list[dict[str, object]] = [
        {"rate": "20 / sec"},
        {"rate": "unlimited"},
        {"rate": ["1/d", "5/m"]},
        {"timeout": "1.5 min", "deadline": "2 days"},
    ]
    for send in spellings:
        tree: dict[str, object] = LEAST | {"send": send}
        assert list(VALIDATOR.iter_errors(tree)) == []
        load(tree, tmp_path)
