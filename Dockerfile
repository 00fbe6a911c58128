# docker build -t bonelib . && docker run --rm -p 8888:8888 bonelib
FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home bonelib
USER bonelib
WORKDIR /home/bonelib/project
COPY --chown=bonelib requirements.lock pyproject.toml README.md Makefile ./
COPY --chown=bonelib bonelib bonelib
RUN make setup
COPY --chown=bonelib . .
EXPOSE 8888
CMD [".venv/bin/jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--LabApp.default_url=/lab/tree/notebooks"]
