"""What a run is: its config, its workdir, its checkpoints, and a trained model that is opened."""
