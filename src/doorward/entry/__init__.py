"""How clients come in. Speaks their protocols, asks the engine for connections, translates its answers back."""
