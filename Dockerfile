# docker build --tag thalnet . && docker run --volume "$PWD/runs:/home/runs" thalnet train quickstart
FROM python:3.11-slim
RUN apt-get -qq update && apt-get -qqy install --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt /src
WORKDIR /home
ENTRYPOINT ["thalnet"]
