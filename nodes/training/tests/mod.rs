mod train_lora;
