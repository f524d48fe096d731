import json

from st_shared.redaction import NAMES_VARIABLE, Redactor, from_environment

PEM = "-----BEGIN KEY-----\nMIIBVAIBADANBgkq\n\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


def test_secrets_are_replaced_by_their_names():
    redactor = Redactor({"HF_TOKEN": "hf_abcdefgh", "OTHER": "hf_abcdefgh_and_more"})
    assert redactor.text("a hf_abcdefgh b") == "a [secret HF_TOKEN] b"
    assert redactor.text("hf_abcdefgh_and_more") == "[secret OTHER]"
    assert redactor.text("hf_abcdefghhf_abcdefgh") == "[secret HF_TOKEN][secret HF_TOKEN]"
    assert redactor.text("hf_abcdefg") == "hf_abcdefg"


def test_a_secret_of_many_lines_is_found_line_by_line():
    redactor = Redactor({"KEY": PEM})
    said = "\n".join(redactor.text(f"{line} |") for line in PEM.splitlines())
    assert "MIIB" not in said
    assert "hkiG" not in said
    assert redactor.text(f"<{PEM.strip()}>") == "<[secret KEY]>"


def test_a_secret_is_found_inside_json_too():
    secret = 'with "quotes" and \\ and\nlines that are long'
    redactor = Redactor({"S": secret})
    assert redactor.text(json.dumps({"a": secret})) == '{"a": "[secret S]"}'
    told = redactor.json({secret: [secret, 1, None, {"b": f"x{secret}"}]})
    assert told == {"[secret S]": ["[secret S]", 1, None, {"b": "x[secret S]"}]}


def test_what_a_process_was_given_is_known_by_its_environment():
    redactor = from_environment({NAMES_VARIABLE: "A,B,GONE", "A": "aaaaaaaa", "B": "bbbbbbbb"})
    assert redactor.text("aaaaaaaa bbbbbbbb") == "[secret A] [secret B]"
    assert not from_environment({})
    assert from_environment({}).text("same") == "same"


def test_special_characters_of_patterns_mean_themselves():
    assert Redactor({"P": "a.b*c(d)e"}).text("a.b*c(d)e axbbc(d)e") == "[secret P] axbbc(d)e"
