# The trainer: NOT YET BUILT OR RUN ON A MACHINE WITH GPUS. From the repository's root:
#   docker build -t crrl-train -f containers/train.Dockerfile .
#   docker run --gpus all --ipc=host --security-opt seccomp=unconfined crrl-train doctor
# Grading in bubblewrap inside a container needs user namespaces, which Docker's default seccomp profile forbids.
FROM pytorch/pytorch:2.13.0-cuda13.0-cudnn9-devel
RUN apt-get update && apt-get install -y --no-install-recommends git ninja-build && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/crrl
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# torch comes with the image and is left as it is
RUN grep -v -i -E '^torch(==|$)' constraints.txt > /tmp/constraints.txt \
 && pip install --no-cache-dir -c /tmp/constraints.txt ".[wandb]" deepspeed==0.19.8 ray==2.60.0
ENV OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
ENTRYPOINT ["crrl"]
