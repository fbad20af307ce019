# The rules that come with tflint. Those for AWS are a plug-in; the providers' schemas are checked by `tofu validate`.
plugin "terraform" {
  enabled = true
  preset  = "all"
}

# One file for each noun; there is no main.tf.
rule "terraform_standard_module_structure" {
  enabled = false
}
