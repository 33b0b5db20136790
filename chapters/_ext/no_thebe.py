"""Leave out Thebe, which Jupyter Book puts on every page (twice, which is a script error) and would
load from a CDN."""


def is_thebe(script) -> bool:
    """By its name or its code. Not by its data: a picture in base64 spells any word sooner or
    later."""
    attributes = getattr(script, "attributes", {})
    text = str(getattr(script, "filename", ""))
    if "json" not in str(attributes.get("type", "")):
        text += str(attributes)
    return "thebe" in text.lower()


def drop_thebe(app, pagename, templatename, context, doctree):
    context["script_files"] = [script for script in context["script_files"] if not is_thebe(script)]


def setup(app):
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
