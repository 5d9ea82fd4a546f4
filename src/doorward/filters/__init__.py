"""Application filters that come with Doorward. They use what any filter may use; `use = "ftp"` names one."""
