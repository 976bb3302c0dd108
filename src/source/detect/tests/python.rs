//! What becomes of Python.

use super::*;

#[test]
fn python_apps_get_the_server_that_fits_their_app_object() {
    let flask = "from flask import Flask\napp = Flask(__name__)\n";
    for (files, runs) in [
        (
            vec![("requirements.txt", "flask"), ("app.py", flask)],
            "gunicorn app:app -b 127.0.0.1:$PORT",
        ),
        (
            vec![
                ("requirements.txt", "flask"),
                (
                    "src/web.py",
                    "def create_app():\n    app = Flask(__name__)\n    return app\n\ndef create_app(x):\n    app = Flask(x)\n",
                ),
            ],
            "gunicorn 'web:create_app()' --chdir src -b 127.0.0.1:$PORT",
        ),
        (
            vec![("requirements.txt", "fastapi\nuvicorn"), ("src/api/main.py", "app = FastAPI()")],
            "uvicorn api.main:app --app-dir src --host 127.0.0.1 --port $PORT",
        ),
        (
            vec![
                ("requirements.txt", "fastapi"),
                ("app/main.py", "from app.x import y\napp: FastAPI = FastAPI()"),
            ],
            "uvicorn app.main:app --host 127.0.0.1 --port $PORT",
        ),
        (
            vec![("requirements.txt", "dash"), ("app.py", "app = dash.Dash(__name__)")],
            "waitress-serve --listen=127.0.0.1:$PORT app:app.server",
        ),
        (
            vec![("requirements.txt", "django"), ("manage.py", ""), ("shop/wsgi.py", "")],
            "gunicorn shop.wsgi:application -b 127.0.0.1:$PORT",
        ),
        (
            vec![("requirements.txt", "django\ndaphne"), ("manage.py", ""), ("shop/asgi.py", "")],
            "uvicorn shop.asgi:application --host 127.0.0.1 --port $PORT",
        ),
        (
            vec![
                ("requirements.txt", "streamlit==1"),
                ("streamlit_app.py", "import streamlit as st"),
            ],
            "streamlit run streamlit_app.py --server.port $PORT --server.address 127.0.0.1 --server.headless true",
        ),
        (
            vec![("requirements.txt", "gradio"), ("demo.py", "import gradio as gr")],
            "python demo.py",
        ),
        (vec![("requirements.txt", ""), ("app.py", "import http.server")], "python app.py"),
    ] {
        assert_eq!(commands(&files).1, runs, "{files:?}");
    }
}

#[test]
fn every_python_lock_has_its_way_and_uv_is_fetched_where_the_machine_has_none() {
    let build = |file: &str, text: &str| commands(&[(file, text), ("main.py", "")]).0;
    assert!(build("uv.lock", "").contains("uv sync --frozen --no-dev --no-install-project"));
    assert!(build("requirements.txt", "").ends_with("uv pip install -r requirements.txt -c -"));
    assert!(
        build("pyproject.toml", "[project]\ndependencies=[]")
            .ends_with("uv pip install -r pyproject.toml")
    );
    for lock in ["poetry.lock", "pdm.lock", "Pipfile.lock", "Pipfile"] {
        assert!(build(lock, "").contains(&format!("locked.py {lock}")), "{lock}");
    }
    let files = [("requirements.txt", ""), ("main.py", ""), (".python-version", "3.12.4\n")];
    let plan = look_on(&files, [""; 3], &["uv"], ("", "")).unwrap();
    assert_eq!(tools(&plan), ["uv-0.13.9", "cpython-3.12"]);
    let range =
        [("pyproject.toml", "[project]\nrequires-python = \">=3.10, <3.13\"\n"), ("main.py", "")];
    assert_eq!(tools(&look(&range).unwrap()), ["cpython-ge3.10_l3.13"]);
    for bad in ["../../x", "3'; id", "system"] {
        let why = look(&[("requirements.txt", ""), (".python-version", bad)]).unwrap_err();
        assert!(why.starts_with(".python-version asks for the version `"), "{why}");
    }
}

#[test]
fn a_program_without_dependencies_needs_no_environment() {
    let plan =
        look_on(&[("main.py", "import http.server")], [""; 3], &["uv", VENV], ("", "")).unwrap();
    assert_eq!((plan.build(), start(&plan)), (None, "python3 main.py"));
    assert!(plan.tools.is_empty());
    let plan = look(&[("Procfile", "web: python3 main.py"), ("main.py", "")]).unwrap();
    assert!(plan.build().is_none() && plan.tools.is_empty());
}

#[test]
fn a_program_of_the_likeliest_name_beats_one_that_only_imports_gradio() {
    let part = "import gradio as gr\ndef controls():\n    return gr.Button()\n";
    let files = [("requirements.txt", "gradio"), ("src/ui/controls.py", part)];
    assert_eq!(commands(&files).1, "python src/ui/controls.py");
    let with_app = [files[0], files[1], ("app.py", "from src.ui import app")];
    assert_eq!(commands(&with_app).1, "python app.py");
    let package = [with_app[0], with_app[2], ("src/ui/__init__.py", "")];
    assert_eq!(commands(&package).1, "PYTHONPATH=src python app.py");
}

#[test]
fn old_packages_get_the_setuptools_of_their_time_unless_they_ask_for_one() {
    let build = |packages: &str| commands(&[("requirements.txt", packages), ("app.py", "")]).0;
    assert!(build("gunicorn==20.0.4").contains("echo 'setuptools<81' | uv pip install -r"));
    assert!(!build("flask\nsetuptools==82.0.0").contains("<81"));
}
