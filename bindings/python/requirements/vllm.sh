# After vllm.txt: vLLM's build for CPUs asks for these three, and what PyPI has of them is built for
# CUDA and breaks `import vllm` where there is none. Text models need none of them.
pip uninstall --quiet --yes torchvision torchaudio torchcodec
