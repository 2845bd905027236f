# After lmcache.txt, inside the environment. The plain torch wheel is a CUDA build of gigabytes: the
# CPU build comes from where pip is set up to look, or from PyTorch's own index.
quiet=(--disable-pip-version-check --quiet)
pip install "${quiet[@]}" torch==2.13.0+cpu ||
    pip install "${quiet[@]}" --extra-index-url https://download.pytorch.org/whl/cpu \
        torch==2.13.0+cpu
pip install "${quiet[@]}" --no-deps lmcache==0.5.6
# The extension of LMCache's raw_block adapter; without it the comparison leaves that out.
pip install "${quiet[@]}" --no-deps lmcache-rust-raw-block-io==0.5.7rc2 ||
    echo "lmcache.sh: no lmcache-rust-raw-block-io for this machine" >&2
# torch may have brought a newer one.
python -c 'import lmcache.v1.distributed.l2_adapters, lmcache.lmcache_fs' >/dev/null
