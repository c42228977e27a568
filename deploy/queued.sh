#!/bin/bash
# Cloud TPU, queued resources: wait for 16 chips of v5e (spot), train when they come, on all workers.
#     bash deploy/queued.sh NAME ZONE gs://bucket/code/dit_jax.tar.gz
# The archive: git archive --prefix=dit_jax/ HEAD | gzip. For two slices: --node-count=2
# --node-prefix=NAME in place of --node-id, --config.mesh.slices=2.
set -euo pipefail
name=$1 zone=$2 code=$3
startup=$(mktemp)
cat > "$startup" << END
#!/bin/bash
set -e
add-apt-repository -y ppa:deadsnakes/ppa
apt-get install -y python3.11-venv
cd /opt
gcloud storage cp $code code.tar.gz
tar -xzf code.tar.gz
cd dit_jax
python3.11 -m venv .venv
.venv/bin/pip install -r requirements.txt "jax[tpu]==0.10.2" gcsfs==2026.10.1
.venv/bin/python launch.py --config=configs/ldit_vit_h.py:paper --workdir=gs://bucket/runs/ldit_vit_h \
    --config.data.cache_dir=gs://bucket/records --config.model.init.model=gs://bucket/start \
    --config.model.dtype=bfloat16 --config.model.remat=scan --config.mesh.fsdp=16
END
gcloud compute tpus queued-resources create "$name" --node-id="$name" --zone="$zone" \
    --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot \
    --metadata-from-file="startup-script=$startup"
